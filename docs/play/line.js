// A flow of one column: the base density below, the increasing map, the density it makes at the left.
"use strict";

(() => {
  const { decimals, disc, drawable, inSlices, mix, Panel, short, ticks } = globalThis.DiffeoPlay;
  const DOTS = 801; // along z
  const REACH = 3.6; // z from -REACH to REACH
  const BANDS = [-1.2816, -0.8416, -0.5244, -0.2533, 0, 0.2533, 0.5244, 0.8416, 1.2816]; // tenths of the mass
  const MARGIN = { left: 34, bottom: 22, top: 6, right: 6 };

  class Line {
    constructor(flow, page) {
      Object.assign(this, { flow, page, alive: true, ready: false });
      const label = "Latent z across, what the layers make of it upwards. Arrow keys move the point.";
      this.panel = new Panel("", label, { ratio: 0.72, redraw: () => page.redraw(), margin: { ...MARGIN } });
      this.panel.figure.classList.add("play-wide");
      this.panels = [this.panel];
      this.panel.interactive(
        ([z]) => page.moveLatent([z]),
        (dx, dy) => page.moveLatent([page.point.z[0] + dx + dy]),
        "pan-y",
      );
      this.prepare();
    }

    async prepare() {
      const { flow } = this;
      const layers = flow.layers.length + 1;
      this.z = Float64Array.from({ length: DOTS }, (_, i) => mix(-REACH, REACH, i / (DOTS - 1)));
      this.values = Array.from({ length: layers }, () => new Float64Array(DOTS));
      this.slopes = Array.from({ length: layers }, () => new Float64Array(DOTS));
      const carry = (i) => {
        const { points, logDets } = flow.path([this.z[i]]);
        points.forEach(([value], layer) => (this.values[layer][i] = value));
        logDets.forEach((logDet, layer) => (this.slopes[layer][i] = Math.exp(logDet)));
      };
      if (!(await inSlices(DOTS, carry, () => this.alive))) return;
      this.boxes = this.values.map((values) => {
        const room = 0.04 * (values[DOTS - 1] - values[0]);
        return [values[0] - room, values[DOTS - 1] + room];
      });
      const bad = this.boxes.findIndex((one) => !drawable(...one));
      if (bad >= 0) return this.page.giveUp(bad, this.boxes[bad]);
      const [low, high] = this.boxes.at(-1);
      this.places = { z: [decimals(2 * REACH)], x: [decimals(high - low)] };
      this.ready = true;
      this.page.report();
    }

    draw(t, point, palette) {
      if (!this.ready) return;
      const last = this.values.length - 1;
      const before = Math.min(Math.floor(t), last - 1);
      const at = (kept, i) => mix(kept[before][i], kept[before + 1][i], t - before);
      const name = t === 0 ? "z" : t === last ? "x" : "h";
      const { panel, z } = this;
      const upwards = { z: "still z", h: `h at layer ${t.toFixed(1)}`, x: "x" }[name];
      panel.caption.textContent = `Across: z. Upwards: ${upwards}. With their densities. Drag sideways.`;
      // the margins hold the two densities
      const side = Math.min(0.22 * panel.width, 150);
      panel.margin.left = MARGIN.left + side;
      panel.margin.bottom = MARGIN.bottom + 0.8 * side;
      panel.box = [-REACH, REACH, at(this.boxes, 0), at(this.boxes, 1)];
      const values = z.map((_, i) => at(this.values, i));
      const base = z.map((v) => Math.exp(this.flow.logBase([v])));
      const made = base.map((p, i) => p / at(this.slopes, i));
      const here = mix(point.path[before][0], point.path[before + 1][0], t - before);
      panel.context.clearRect(0, 0, panel.width, panel.height);
      panel.draw(palette, ["z", name], (context) => {
        context.strokeStyle = palette.ink;
        context.lineWidth = 2;
        trace(context, z.map((v) => panel.toX(v)), values.map((v) => panel.toY(v)));
        context.stroke();
      });
      this.densities(values, base, made, side, palette, name);
      this.mark(point.z[0], here, side, palette);
    }

    /** A line across a density, and what it stands for. */
    scale(highest, length, place, { ink, gray }) {
      const { context, plot } = this.panel;
      const value = ticks(0, highest, 3).at(-1);
      if (value === undefined) return; // a density too high for a number
      context.fillStyle = gray;
      context.font = "11px system-ui, sans-serif";
      const off = (value / highest) * length;
      if (place === "left") {
        const x = plot.x - MARGIN.left - off;
        context.fillRect(x, plot.y, 1, plot.height);
        context.fillStyle = ink;
        context.textAlign = "center";
        context.textBaseline = "top";
        context.fillText(short(value), x, plot.y + plot.height + 6);
      } else {
        const y = plot.y + plot.height + MARGIN.bottom + off;
        context.fillRect(plot.x, y, plot.width, 1);
        context.fillStyle = ink;
        context.textAlign = "right";
        context.textBaseline = "middle";
        context.fillText(short(value), plot.x - 6, y);
      }
    }

    /** Both densities, every other tenth of the mass shaded: the mass between two lines is kept. */
    densities(values, base, made, side, palette, name) {
      const { panel, z } = this;
      const { context, plot } = panel;
      const floor = plot.y + plot.height + MARGIN.bottom;
      const wall = plot.x - MARGIN.left;
      const highest = Math.max(...base);
      const densest = made.slice().sort()[Math.floor(0.99 * (DOTS - 1))] * 1.1;
      const down = base.map((p) => floor + (p / highest) * (0.8 * side - 4));
      const left = made.map((p) => wall - Math.min(1, p / densest) * (side - 4));
      const across = z.map((v) => panel.toX(v));
      const up = values.map((v) => panel.toY(v));
      const edges = [0, ...BANDS.map((edge) => z.findIndex((v) => v >= edge)), DOTS - 1];
      for (let band = 0; band + 1 < edges.length; band++) {
        const [i, j] = [edges[band], edges[band + 1] + 1];
        context.fillStyle = palette.blue;
        context.globalAlpha = band % 2 ? 0.5 : 0.2;
        trace(context, across.slice(i, j), down.slice(i, j));
        context.lineTo(across[j - 1], floor);
        context.lineTo(across[i], floor);
        context.fill();
        context.fillStyle = palette.green;
        trace(context, left.slice(i, j), up.slice(i, j));
        context.lineTo(wall, up[j - 1]);
        context.lineTo(wall, up[i]);
        context.fill();
      }
      context.globalAlpha = 1;
      this.scale(densest, side - 4, "left", palette);
      this.scale(highest, 0.8 * side - 4, "below", palette);
      context.fillStyle = palette.ink;
      context.textAlign = "left";
      context.fillText(`p(${name})`, wall - side, plot.y + 8);
      context.fillText("p(z)", plot.x + 4, floor + 0.8 * side - 8);
      context.lineWidth = 1.5;
      context.strokeStyle = palette.blue;
      trace(context, across, down);
      context.stroke();
      context.strokeStyle = palette.green;
      trace(context, left, up);
      context.stroke();
    }

    mark(z, here, side, { orange, ink }) {
      const { panel } = this;
      const { context, plot } = panel;
      const [x, y] = [panel.toX(z), panel.toY(here)];
      context.strokeStyle = orange;
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(x, plot.y + plot.height + MARGIN.bottom + 0.8 * side);
      context.lineTo(x, y);
      context.lineTo(plot.x - MARGIN.left - side, y);
      context.stroke();
      disc(context, x, y, 6, orange, ink);
    }

    close() {
      this.alive = false;
      this.panel.observer.disconnect();
    }
  }

  function trace(context, xs, ys) {
    context.beginPath();
    for (let i = 0; i < xs.length; i++) context.lineTo(xs[i], ys[i]);
  }

  Object.assign(globalThis.DiffeoPlay, { Line });
})();
