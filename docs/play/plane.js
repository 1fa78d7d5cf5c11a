// A flow of two columns: latent plane, the layer the slider is at, data plane.
"use strict";

(() => {
  const { decimals, disc, drawable, inSlices, mix, normals, Panel, rgb } = globalThis.DiffeoPlay;
  const POINTS = 1500;
  const LINES = 7; // of the grid, each way: z = -3, ..., 3
  const DOTS = 97; // on each of them
  const CELLS = 96; // of the density, each way

  class Plane {
    constructor(flow, page) {
      Object.assign(this, { flow, page, alive: true, ready: false });
      const redraw = () => page.redraw();
      const keys = "Arrow keys move the point.";
      this.latent = new Panel("Latent z: drag the point", `Latent plane. ${keys}`, { redraw });
      this.stage = new Panel("", "All points, at the layer chosen", { redraw });
      this.data = new Panel("Data x: drag here, too", `Data plane. ${keys}`, { redraw });
      this.panels = [this.latent, this.stage, this.data];
      this.latent.interactive(
        (z) => page.moveLatent(z),
        (dx, dy) => page.moveLatent([page.point.z[0] + dx, page.point.z[1] + dy]),
      );
      this.data.interactive(
        (x) => page.moveData(x),
        (dx, dy) => page.moveData([page.point.x[0] + dx, page.point.x[1] + dy]),
      );
      this.prepare();
    }

    /** Every point of cloud and grid in every layer, then the two densities: once, in slices. */
    async prepare() {
      const { flow } = this;
      const random = normals(1);
      const starts = Array.from({ length: POINTS }, () => [random(), random()]);
      for (let line = 0; line < 2 * LINES; line++) {
        for (let dot = 0; dot < DOTS; dot++) {
          const along = mix(-3, 3, dot / (DOTS - 1));
          const across = (line % LINES) - 3;
          starts.push(line < LINES ? [along, across] : [across, along]);
        }
      }
      this.layers = Array.from({ length: flow.layers.length + 1 }, () => new Float64Array(2 * starts.length));
      const carry = (i) => {
        flow.path(starts[i]).points.forEach((point, layer) => this.layers[layer].set(point, 2 * i));
      };
      if (!(await inSlices(starts.length, carry, () => this.alive))) return;
      this.left = starts.slice(0, POINTS).map(([a]) => a < 0);
      const own = this.layers.map(box);
      for (const [layer, [left, right, low, high]] of own.entries()) {
        if (!drawable(left, right)) return this.page.giveUp(layer, [left, right], 1);
        if (!drawable(low, high)) return this.page.giveUp(layer, [low, high], 2);
      }
      this.latent.box = square(own[0]);
      this.data.box = square(own.at(-1));
      this.boxes = together(own).map(square);
      this.places = { z: places(this.latent.box), x: places(this.data.box) };
      this.ready = true;
      this.page.report();
      this.latent.shade = await this.density(this.latent.box, (z) => flow.logBase(z));
      this.page.redraw();
      this.data.shade = await this.density(this.data.box, (x) => flow.logProb(x));
      this.page.redraw();
    }

    async density([left, right, low, high], logProb) {
      const p = new Float64Array(CELLS * CELLS);
      const cell = (i) => {
        const x = mix(left, right, ((i % CELLS) + 0.5) / CELLS);
        const y = mix(high, low, (Math.floor(i / CELLS) + 0.5) / CELLS);
        p[i] = Math.exp(logProb([x, y]));
      };
      return (await inSlices(p.length, cell, () => this.alive)) ? new Shade(p) : null;
    }

    draw(t, point, palette) {
      if (!this.ready) return;
      const last = this.layers.length - 1;
      const before = Math.min(Math.floor(t), last - 1);
      const share = t - before;
      this.stage.box = this.boxes[before].map((edge, i) => mix(edge, this.boxes[before + 1][i], share));
      const name = t === 0 ? "z" : t === last ? "x" : "h";
      const captions = { z: "Before any layer: z", h: `At layer ${t.toFixed(1)}: h`, x: "After the last: x" };
      this.stage.caption.textContent = captions[name];
      this.latent.draw(palette, ["z₁", "z₂"], (context) => {
        this.latent.shade?.paint(context, this.latent, palette.blue);
        this.points(context, this.latent, 0, 0, palette);
        this.mark(context, this.latent, point.path[0], palette);
      });
      this.stage.draw(palette, [`${name}₁`, `${name}₂`], (context) => {
        this.points(context, this.stage, before, share, palette);
        this.trail(context, this.stage, point.path, palette);
        const here = [0, 1].map((i) => mix(point.path[before][i], point.path[before + 1][i], share));
        this.mark(context, this.stage, here, palette);
      });
      this.data.draw(palette, ["x₁", "x₂"], (context) => {
        this.data.shade?.paint(context, this.data, palette.blue);
        this.points(context, this.data, last - 1, 1, palette);
        this.mark(context, this.data, point.path[last], palette);
      });
    }

    points(context, panel, before, share, palette) {
      const from = this.layers[before];
      const to = this.layers[before + 1];
      const x = (i) => panel.toX(mix(from[2 * i], to[2 * i], share));
      const y = (i) => panel.toY(mix(from[2 * i + 1], to[2 * i + 1], share));
      context.strokeStyle = palette.gray;
      context.lineWidth = 0.7;
      context.beginPath();
      for (let line = 0; line < 2 * LINES; line++) {
        const start = POINTS + line * DOTS;
        context.moveTo(x(start), y(start));
        for (let i = start + 1; i < start + DOTS; i++) context.lineTo(x(i), y(i));
      }
      context.stroke();
      const size = panel.width > 280 ? 2 : 1.5;
      context.globalAlpha = 0.75;
      for (const left of [true, false]) {
        context.fillStyle = left ? palette.blue : palette.green;
        for (let i = 0; i < POINTS; i++) {
          if (this.left[i] === left) context.fillRect(x(i) - size / 2, y(i) - size / 2, size, size);
        }
      }
      context.globalAlpha = 1;
    }

    /** The point's way through all layers: a line, and a dot at each. */
    trail(context, panel, path, { ink, orange }) {
      context.strokeStyle = orange;
      context.lineWidth = 1.5;
      context.beginPath();
      path.forEach(([a, b], i) => context[i ? "lineTo" : "moveTo"](panel.toX(a), panel.toY(b)));
      context.stroke();
      for (const [a, b] of path) disc(context, panel.toX(a), panel.toY(b), 2, orange);
      context.fillStyle = ink;
      context.font = "italic 14px Georgia, serif";
      context.textAlign = "center";
      context.textBaseline = "bottom";
      for (const [name, [a, b]] of [["z", path[0]], ["x", path.at(-1)]]) {
        context.fillText(name, panel.toX(a), panel.toY(b) - 6);
      }
    }

    mark(context, panel, [a, b], { orange, ink }) {
      disc(context, panel.toX(a), panel.toY(b), 6, orange, ink);
    }

    close() {
      this.alive = false;
      for (const panel of this.panels) panel.observer.disconnect();
    }
  }

  /** A density as a picture: one color, the more opaque the denser. */
  class Shade {
    constructor(p) {
      this.p = p;
      const sorted = p.slice().sort();
      this.top = sorted[Math.floor(0.995 * (p.length - 1))] || 1;
    }

    paint(context, panel, color) {
      if (this.color !== color) this.render(color);
      const { x, y, width, height } = panel.plot;
      context.imageSmoothingEnabled = true;
      context.drawImage(this.image, x, y, width, height);
    }

    render(color) {
      this.color = color;
      this.image = Object.assign(document.createElement("canvas"), { width: CELLS, height: CELLS });
      const context = this.image.getContext("2d");
      const pixels = context.createImageData(CELLS, CELLS);
      const [r, g, b] = rgb(color);
      this.p.forEach((p, i) => pixels.data.set([r, g, b, 150 * Math.min(1, p / this.top)], 4 * i));
      context.putImageData(pixels, 0, 0);
    }
  }

  /** What to show of a layer: nearly all of its points, left, right, low, high. */
  function box(values) {
    return [0, 1].flatMap((column) => {
      const sorted = Float64Array.from({ length: POINTS }, (_, i) => values[2 * i + column]).sort();
      const low = sorted[Math.floor(0.003 * POINTS)];
      const high = sorted[Math.ceil(0.997 * POINTS) - 1];
      const room = 0.12 * (high - low);
      return [low - room, high + room];
    });
  }

  const places = ([left, right, low, high]) => [decimals(right - left), decimals(high - low)];

  /** One box for all layers where they are of like size, so that what moves in the picture moves. */
  function together(own) {
    const all = own[0].map((_, i) => (i % 2 ? Math.max : Math.min)(...own.map((one) => one[i])));
    const alike = own.every((one) => [0, 2].every((i) => all[i + 1] - all[i] < 4 * (one[i + 1] - one[i])));
    return alike ? own.map(() => all) : own;
  }

  /** The box with equal scales both ways, unless that would make one column a line. */
  function square([left, right, low, high]) {
    const [width, height] = [right - left, high - low];
    if (Math.max(width, height) > 3 * Math.min(width, height)) return [left, right, low, high];
    const half = Math.max(width, height) / 2;
    const [a, b] = [(left + right) / 2, (low + high) / 2];
    return [a - half, a + half, b - half, b + half];
  }

  Object.assign(globalThis.DiffeoPlay, { Plane });
})();
