// The page: which model, which layer, which point; and what the numbers are.
"use strict";

(() => {
  const { colors, element, Flow, Line, models, Plane, rounded, short, shown } = globalThis.DiffeoPlay;
  const SECONDS = 0.55; // a layer, when playing
  const LAYERS = 200; // at most, and
  const MEGABYTES = 20; // of a file

  class Page {
    constructor(root) {
      this.root = root;
      this.models = new Map(Object.entries(models));
      this.view = null;
      this.playing = 0;
      this.t = 0;
      this.build();
      this.choose();
      const dark = window.matchMedia("(prefers-color-scheme: dark)");
      dark.addEventListener("change", () => this.redraw());
      const theme = new MutationObserver(() => this.redraw());
      theme.observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
    }

    build() {
      const options = [...this.models].map(([key, { title }]) => element("option", { value: key }, title));
      this.select = element("select", { "aria-label": "Model" }, ...options);
      this.file = element("input", { type: "file", accept: ".json,application/json" });
      this.button = element("button", { type: "button" }, "Play");
      this.slider = element("input", { type: "range", min: 0, max: 1, step: 0.02, "aria-label": "Layer" });
      this.step = element("div", { class: "play-step" });
      this.note = element("p", { class: "play-note" });
      this.problem = element("p", { class: "play-problem", role: "alert" });
      this.views = element("div", { class: "play-views" });
      this.numbers = element("dl", { class: "play-numbers" });
      this.problem.hidden = true;
      const own = element("label", { class: "play-file" }, "or your own: ", this.file);
      const slider = element("label", { class: "play-slider" }, this.slider);
      this.root.replaceChildren(
        element("div", { class: "play-row" }, element("label", {}, "Model ", this.select), own),
        this.problem,
        this.note,
        element("div", { class: "play-row" }, this.button, slider),
        this.step,
        this.views,
        this.numbers,
      );
      this.select.addEventListener("change", () => this.choose());
      this.file.addEventListener("change", () => this.read(this.file.files[0]));
      this.button.addEventListener("click", () => (this.playing ? this.stop() : this.play()));
      this.slider.addEventListener("input", () => {
        this.stop();
        this.show(Number(this.slider.value));
      });
      this.slider.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -0.2, ArrowDown: -0.2, ArrowRight: 0.2, ArrowUp: 0.2 }[event.key];
        if (!step) return;
        event.preventDefault();
        this.stop();
        this.show(this.t + step);
      });
    }

    choose() {
      this.open(this.select.value, this.models.get(this.select.value));
    }

    /** A model that came with the page or was read from a file; listed only if it can be read. */
    open(key, model) {
      this.stop();
      let read;
      try {
        checkSize(model.flow);
        read = new Flow(model.flow);
      } catch (error) {
        this.complain(`${model.title}: ${error.message}`);
        return;
      }
      this.problem.hidden = true;
      if (!this.models.has(key)) this.select.append(element("option", { value: key }, model.title));
      this.models.set(key, model);
      this.select.value = key;
      this.flow = read;
      this.view?.close();
      this.view = null;
      this.note.textContent = model.note;
      this.slider.max = read.layers.length;
      this.t = 0;
      this.moveLatent(read.features === 2 ? [0.8, -0.6] : [0.8]);
      this.view = new (read.features === 2 ? Plane : Line)(read, this);
      this.views.className = `play-views play-views-${read.features}`;
      this.views.replaceChildren(...this.view.panels.map((panel) => panel.figure));
      this.show(read.features === 2 ? read.layers.length / 2 : read.layers.length);
    }

    async read(file) {
      if (!file) return;
      this.file.value = ""; // the same file may be chosen again, rewritten
      if (file.size > MEGABYTES * 1e6) {
        const size = (file.size / 1e6).toFixed(1);
        this.complain(`${file.name}: it has ${size} MB; this page reads up to ${MEGABYTES}.`);
        return;
      }
      let flow;
      try {
        flow = JSON.parse(await file.text());
      } catch {
        this.complain(`${file.name}: this is not JSON; diffeo.interop.browser_json(flow) writes what is read here.`);
        return;
      }
      const note = "Read in your browser alone; it was sent nowhere.";
      this.open(`file: ${file.name}`, { title: file.name, note, flow });
    }

    /** The view could not draw a layer, whose values lie between low and high. */
    giveUp(layer, [low, high], column) {
      this.view.close();
      this.view = null;
      this.views.replaceChildren();
      const which = column ? `column ${column} after layer ${layer}` : `what layer ${layer} gives`;
      const { title } = this.models.get(this.select.value);
      this.complain(`${title}: ${which} cannot be drawn; it lies between ${short(low)} and ${short(high)}.`);
    }

    complain(text) {
      this.problem.textContent = text;
      this.problem.hidden = false;
    }

    // -- the point -----------------------------------------------------------------------------------

    /** How many decimals each column of z and x is rounded to, once the view knows its panels' widths. */
    get places() {
      return this.view?.places ?? { z: [3, 3], x: [3, 3] };
    }

    /** The latent point put here. It is rounded to what is shown, so that what is shown is the point. */
    moveLatent(z) {
      this.settle(z.map((v, i) => rounded(v, this.places.z[i])), true);
    }

    moveData(x) {
      const held = x.map((v, i) => rounded(v, this.places.x[i]));
      this.settle(Array.from(this.flow.toLatent(held).value), false, held);
    }

    settle(z, latentFirst, given) {
      const { points, logDets } = this.flow.path(z);
      const x = given ?? Array.from(points.at(-1));
      this.point = { z, x, logDet: logDets.at(-1), latentFirst, path: points.map((p) => Array.from(p)) };
      this.report();
    }

    /** The point's numbers: those held as they are, those computed with a digit more. */
    report() {
      const { z, x, logDet, latentFirst } = this.point;
      const { places } = this;
      const logBase = this.flow.logBase(z);
      const vector = (values, digits, more) => {
        const list = values.map((v, i) => shown(v, digits[i] + more));
        return list.length === 1 ? list[0] : `(${list.join(", ")})`;
      };
      const rows = [
        ["z", "z", vector(z, places.z, latentFirst ? 0 : 1), ""],
        ["x", "x", vector(x, places.x, latentFirst ? 1 : 0), ""],
        ["log p(z)", "log-base", shown(logBase, 4), "nats"],
        ["log |det ∂x/∂z|", "log-det", shown(logDet, 4), "nats"],
        ["log p(x) = log p(z) − log |det ∂x/∂z|", "log-prob", shown(logBase - logDet, 4), "nats"],
      ];
      const row = ([term, key, value, unit]) => {
        const output = element("output", { "data-value": key }, value);
        return element("div", {}, element("dt", {}, term), element("dd", {}, output, ` ${unit}`));
      };
      this.numbers.replaceChildren(...rows.map(row));
      this.redraw();
    }

    // -- the layer -----------------------------------------------------------------------------------

    show(t) {
      const last = this.flow.layers.length;
      this.t = Math.min(last, Math.max(0, Math.round(t * 1e6) / 1e6));
      this.slider.value = this.t;
      const done = Math.floor(this.t);
      const { titles } = this.flow;
      const text =
        done === last ? `Data: after all ${last} layers` :
        this.t === 0 ? `Latent: before the first of ${last} layers` :
        this.t === done ? `After layer ${done} of ${last}: ${titles[done - 1]}` :
        `Layer ${done + 1} of ${last}: ${titles[done]}`;
      this.step.textContent = text;
      this.slider.setAttribute("aria-valuetext", text);
      this.redraw();
    }

    play() {
      const last = this.flow.layers.length;
      const start = this.t >= last ? 0 : this.t;
      const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      let began;
      this.button.textContent = "Pause";
      const frame = (now) => {
        began ??= now;
        const t = start + (now - began) / 1000 / SECONDS;
        const whole = Math.floor(t);
        const part = t - whole;
        // every layer starts and ends gently; with reduced motion, layer after layer without the way between
        this.show(still ? whole : whole + part * part * (3 - 2 * part));
        if (t >= last) this.stop();
        else this.playing = requestAnimationFrame(frame);
      };
      this.playing = requestAnimationFrame(frame);
    }

    stop() {
      cancelAnimationFrame(this.playing);
      this.playing = 0;
      this.button.textContent = "Play";
    }

    /** At the next frame, once. */
    redraw() {
      this.waiting ??= requestAnimationFrame(() => {
        this.waiting = undefined;
        this.view?.draw(this.t, this.point, colors(this.root));
      });
    }
  }

  /** What the page does not take on, told before the layers are built. */
  function checkSize(spec) {
    if (spec?.features > 2) throw new Error(`it has ${spec.features} columns; this page draws 1 or 2.`);
    const count = spec?.layers?.length;
    if (count === 0) throw new Error("the model has no layers.");
    if (count > LAYERS) throw new Error(`it has ${count} layers; this page draws up to ${LAYERS}.`);
  }

  const root = document.getElementById("play");
  globalThis.DiffeoPlay.page = new Page(root);
})();
