// Small helpers of the page: elements, colors, a canvas with axes, work in slices.
"use strict";

(() => {
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  /** The page's colors, as its style sheet says for light or dark. */
  function colors(root) {
    const style = getComputedStyle(root);
    const read = (name) => style.getPropertyValue(`--play-${name}`).trim();
    const names = ["ink", "gray", "blue", "green", "orange"];
    return Object.fromEntries(names.map((name) => [name, read(name)]));
  }

  /** The three numbers of a color, for pixels. */
  function rgb(color) {
    const context = element("canvas", { width: 1, height: 1 }).getContext("2d");
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  }

  /** work(0), ..., work(count - 1), some milliseconds at a time; false if it was called off. */
  async function inSlices(count, work, wanted, milliseconds = 8) {
    let until = performance.now() + milliseconds;
    for (let i = 0; i < count; i++) {
      work(i);
      if (performance.now() > until) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        if (!wanted()) return false;
        until = performance.now() + milliseconds;
      }
    }
    return wanted();
  }

  /** Normal random numbers, the same every time. */
  function normals(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  const mix = (a, b, share) => a * (1 - share) + b * share; // a at 0 and b at 1, exactly

  /** Round numbers between low and high, some `wanted` of them. */
  function ticks(low, high, wanted = 5) {
    const raw = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
    if (!(step > 0 && step < Infinity)) return [];
    const first = Math.ceil(low / step);
    const found = [];
    // counted by k: beyond 2^53 a number plus one is the same number
    for (let k = 0; k <= 2 * wanted && (first + k) * step <= high; k++) {
      if ((first + k) * step !== found.at(-1)) found.push((first + k) * step);
    }
    return found;
  }

  /** Whether it can be drawn between these: finite, and far enough apart for their size. */
  function drawable(low, high) {
    const room = Math.max(1e-300, 1e-12 * Math.abs(low), 1e-12 * Math.abs(high));
    return high - low > room && high - low < 1e300;
  }

  /** How many decimals tell a thousandth of this width. */
  const decimals = (width) => Math.ceil(3 - Math.log10(width));

  function rounded(value, places) {
    const whole = Math.round(value * 10 ** places);
    return Math.abs(whole) < 1e15 ? Number(`${whole}e${-places}`) : value;
  }

  const signs = (text) => text.replace("e+", "e").replaceAll("-", "−");

  /** A number with that many decimals; long ones by their power of ten. */
  function shown(value, places) {
    const power = value ? Math.floor(Math.log10(Math.abs(value))) : -Infinity;
    const plain = places < 9 && power < 9;
    const digits = Math.min(15, Math.max(0, plain ? places : places + power));
    const text = plain ? value.toFixed(digits) : value.toExponential(digits);
    return signs(Number(text) === 0 ? text.replace("-", "") : text);
  }

  /** A number beside an axis. */
  function short(value) {
    const number = Number(value.toPrecision(4));
    const plain = number === 0 || (Math.abs(number) >= 1e-3 && Math.abs(number) < 1e5);
    return signs(plain ? String(number) : number.toExponential());
  }

  /** A canvas that keeps its pixels sharp, with axes around a plot. */
  class Panel {
    constructor(caption, label, { ratio = 1, redraw, margin = { left: 34, bottom: 22, top: 6, right: 6 } }) {
      this.canvas = element("canvas", { "aria-label": label, role: "img" });
      this.caption = element("figcaption", {}, caption);
      this.figure = element("figure", { class: "play-panel" }, this.caption, this.canvas);
      this.context = this.canvas.getContext("2d");
      this.margin = margin;
      this.box = [0, 1, 0, 1];
      this.width = this.height = 0;
      this.observer = new ResizeObserver(() => {
        const width = this.canvas.clientWidth;
        const scale = window.devicePixelRatio || 1;
        if (!width) return;
        this.width = width;
        this.height = Math.round(width * ratio);
        this.canvas.style.height = `${this.height}px`;
        this.canvas.width = Math.round(width * scale);
        this.canvas.height = Math.round(this.height * scale);
        this.context.setTransform(scale, 0, 0, scale, 0, 0);
        redraw();
      });
      this.observer.observe(this.canvas);
    }

    get plot() {
      const { left, right, top, bottom } = this.margin;
      return { x: left, y: top, width: this.width - left - right, height: this.height - top - bottom };
    }

    toX(value) {
      const { x, width } = this.plot;
      return x + ((value - this.box[0]) / (this.box[1] - this.box[0])) * width;
    }

    toY(value) {
      const { y, height } = this.plot;
      return y + height - ((value - this.box[2]) / (this.box[3] - this.box[2])) * height;
    }

    fromPixel(px, py) {
      const { x, y, width, height } = this.plot;
      const [left, right, low, high] = this.box;
      const across = Math.min(1, Math.max(0, (px - x) / width));
      const up = Math.min(1, Math.max(0, (y + height - py) / height));
      return [mix(left, right, across), mix(low, high, up)];
    }

    /** Empty, then `inside(context)` within the frame, then the axes. */
    draw({ ink, gray }, [nameX, nameY], inside) {
      const { context, box } = this;
      const { x, y, width, height } = this.plot;
      context.clearRect(0, 0, this.width, this.height);
      context.save();
      context.beginPath();
      context.rect(x, y, width, height);
      context.clip();
      inside(context);
      context.restore();
      context.strokeStyle = gray;
      context.lineWidth = 1;
      context.strokeRect(x, y, width, height);
      context.fillStyle = ink;
      context.font = "11px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "top";
      const wanted = Math.max(2, Math.min(6, Math.floor(width / 60)));
      for (const value of ticks(box[0], box[1], wanted)) {
        const at = this.toX(value);
        if (at > x + width - 16) continue; // the axis' name stands there
        context.fillRect(at, y + height, 1, 3);
        context.fillText(short(value), at, y + height + 6);
      }
      context.fillText(nameX, x + width - 6, y + height + 6);
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const value of ticks(box[2], box[3], Math.max(2, Math.min(6, Math.floor(height / 32))))) {
        const at = this.toY(value);
        if (at < y + 18) continue;
        context.fillRect(x - 3, at, 3, 1);
        context.fillText(short(value), x - 6, at, this.margin.left - 8);
      }
      context.fillText(nameY, x - 8, y + 7);
    }

    /** Let pointer and arrow keys move a point: `moved([a, b])` by dragging, `stepped(dx, dy)` by keys. */
    interactive(moved, stepped, touch = "none") {
      const { canvas } = this;
      canvas.setAttribute("role", "application");
      canvas.setAttribute("tabindex", "0");
      canvas.classList.add("play-drag");
      canvas.style.touchAction = touch;
      const move = (event) => {
        const corner = canvas.getBoundingClientRect();
        moved(this.fromPixel(event.clientX - corner.left, event.clientY - corner.top));
      };
      canvas.addEventListener("pointerdown", (event) => {
        if (event.button) return;
        canvas.setPointerCapture(event.pointerId);
        move(event);
      });
      canvas.addEventListener("pointermove", (event) => {
        if (canvas.hasPointerCapture(event.pointerId)) move(event);
      });
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      canvas.addEventListener("keydown", (event) => {
        const step = steps[event.key];
        if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        const size = ((this.box[1] - this.box[0]) / 100) * (event.shiftKey ? 5 : 1);
        const sizeY = ((this.box[3] - this.box[2]) / 100) * (event.shiftKey ? 5 : 1);
        stepped(step[0] * size, step[1] * sizeY);
      });
    }
  }

  function disc(context, x, y, radius, color, edge) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = color;
    context.fill();
    if (!edge) return;
    context.strokeStyle = edge;
    context.lineWidth = 1.5;
    context.stroke();
  }

  const numbers = { decimals, drawable, mix, normals, rounded, short, shown, ticks };
  Object.assign(globalThis.DiffeoPlay, numbers, { colors, disc, element, inSlices, Panel, rgb });
})();
