// The mathematics of a flow in plain JavaScript: diffeo's layers, read from what diffeo.interop.browser_json writes.
//
// As in diffeo, "forward" takes data to latent and "inverse" latent to data; each log-determinant is of the
// map just applied, in nats. Layers change a point in place and return the log-determinant.
"use strict";

(() => {
  const FORMAT = "diffeo layers 1";
  const FLOOR = 1e-3; // smallest bin, as a fraction of the box, and smallest slope
  const ZERO = Math.log(Math.expm1(1 - FLOOR)); // softplus(ZERO) + FLOOR = 1

  // -- reading -------------------------------------------------------------------------------------------

  function vector(values, length, what) {
    const right = Array.isArray(values) && (length === undefined || values.length === length);
    if (!right || !values.every(Number.isFinite)) {
      throw new Error(`${what} should be ${length ?? "some"} finite numbers.`);
    }
    return Float64Array.from(values);
  }

  function matrix(rows, height, width, what) {
    if (!Array.isArray(rows) || rows.length !== height) {
      throw new Error(`${what} should have ${height} rows.`);
    }
    const flat = new Float64Array(height * width);
    rows.forEach((row, i) => flat.set(vector(row, width, what), i * width));
    return flat;
  }

  function indices(values, below, what) {
    if (!Array.isArray(values) || !values.every((v) => Number.isInteger(v) && v >= 0 && v < below)) {
      throw new Error(`${what} should be column numbers below ${below}.`);
    }
    return values;
  }

  // -- families of increasing scalar maps ----------------------------------------------------------------
  // apply(value, params, start, inverse) returns the new value and leaves its log-slope in logSlope.

  class Additive {
    numParams = 1;
    logSlope = 0;

    apply(value, params, start, inverse) {
      return inverse ? value - params[start] : value + params[start];
    }
  }

  class Affine {
    numParams = 2;
    logSlope = 0;

    constructor({ bound }) {
      this.bound = vector([bound], 1, "an affine map's bound")[0];
    }

    apply(value, params, start, inverse) {
      const raw = params[start + 1];
      const logScale = raw / (1 + Math.abs(raw) / this.bound);
      this.logSlope = inverse ? -logScale : logScale;
      const shift = params[start];
      return inverse ? (value - shift) / Math.exp(logScale) : value * Math.exp(logScale) + shift;
    }
  }

  class RationalQuadratic {
    logSlope = 0;

    constructor({ bins, bound }) {
      if (!Number.isInteger(bins) || bins < 1 || bins > 512) throw new Error("a spline has 1 to 512 bins.");
      this.bins = bins;
      this.bound = vector([bound], 1, "a spline's bound")[0];
      this.numParams = 3 * bins - 1;
      this.x = new Float64Array(bins + 1);
      this.y = new Float64Array(bins + 1);
    }

    knots(out, logits, start) {
      const { bins, bound } = this;
      let largest = -Infinity;
      for (let i = 0; i < bins; i++) largest = Math.max(largest, logits[start + i]);
      let sum = 0;
      for (let i = 0; i < bins; i++) sum += out[i + 1] = Math.exp(logits[start + i] - largest);
      const share = (1 - bins * FLOOR) / sum;
      let at = 0;
      out[0] = -bound;
      for (let i = 1; i < bins; i++) {
        at += out[i] * share + FLOOR;
        out[i] = at * 2 * bound - bound;
      }
      out[bins] = bound;
    }

    slope(params, start, knot) {
      if (knot === 0 || knot === this.bins) return 1; // meets the identity outside smoothly
      const raw = params[start + 2 * this.bins + knot - 1] + ZERO;
      return (raw > 20 ? raw : Math.log1p(Math.exp(raw))) + FLOOR;
    }

    apply(value, params, start, inverse) {
      const { bins, bound, x, y } = this;
      this.logSlope = 0;
      if (!(Math.abs(value) <= bound)) return value;
      this.knots(x, params, start);
      this.knots(y, params, start + bins);
      const at = inverse ? y : x;
      let k = 0;
      while (k < bins - 1 && value >= at[k + 1]) k++;
      const w = x[k + 1] - x[k];
      const h = y[k + 1] - y[k];
      const s = h / w;
      const d0 = this.slope(params, start, k);
      const d1 = this.slope(params, start, k + 1);
      let t, t1; // how far along the bin, from its left end and from its right end
      if (inverse) {
        const u = (value - y[k]) / h;
        const u1 = (y[k + 1] - value) / h;
        const q = d0 * u1 - d1 * u;
        const r = Math.sqrt(q * q + 4 * s * s * u * u1);
        const a = q >= 0 ? 2 * s * u : r - q;
        const b = q >= 0 ? q + r : 2 * s * u1;
        t = a / (a + b);
        t1 = b / (a + b);
      } else {
        t = (value - x[k]) / w;
        t1 = (x[k + 1] - value) / w;
      }
      const den = s * (t * t + t1 * t1) + (d0 + d1) * t * t1;
      const logSlope = Math.log(d1 * t * t + 2 * s * t * t1 + d0 * t1 * t1) + 2 * Math.log(s / den);
      this.logSlope = inverse ? -logSlope : logSlope;
      if (inverse) return t < t1 ? x[k] + w * t : x[k + 1] - w * t1;
      if (t < t1) return y[k] + (h * (s * t * t + d0 * t * t1)) / den;
      return y[k + 1] - (h * (s * t1 * t1 + d1 * t * t1)) / den;
    }
  }

  // a family, then an affine map, whose two parameters come first
  class LocationScale {
    logSlope = 0;

    constructor(spec) {
      this.family = family(spec.family);
      this.affine = new Affine(spec.affine ?? {});
      this.numParams = 2 + this.family.numParams;
    }

    apply(value, params, start, inverse) {
      const { family, affine } = this;
      if (inverse) value = affine.apply(value, params, start, true);
      value = family.apply(value, params, start + 2, inverse);
      if (!inverse) value = affine.apply(value, params, start, false);
      this.logSlope = family.logSlope + affine.logSlope;
      return value;
    }
  }

  const FAMILIES = {
    additive: Additive,
    affine: Affine,
    location_scale: LocationScale,
    rational_quadratic: RationalQuadratic,
  };

  function family(spec) {
    if (!Object.hasOwn(FAMILIES, spec?.kind)) throw new Error(`the family ${spec?.kind} is not known here.`);
    return new FAMILIES[spec.kind](spec);
  }

  // -- nets ----------------------------------------------------------------------------------------------

  class Net {
    /** Dense layers: weight · act(input) + bias, plus the output of layer `add`; `relu` is of the input. The first
        layer's `reach`, if any, bounds what the net sees. */
    constructor(layers, inputs, outputs) {
      if (!Array.isArray(layers) || !layers.length) throw new Error("a net has no layers.");
      let width = inputs;
      this.reach = layers[0].reach ?? Infinity;
      this.seen = new Float64Array(inputs);
      this.layers = layers.map(({ weight, bias, relu, add }, number) => {
        const height = weight?.length;
        const dense = {
          weight: matrix(weight, height, width, `weight of a net's layer ${number}`),
          bias: vector(bias, height, `bias of a net's layer ${number}`),
          relu: Boolean(relu),
          add: add ?? -1,
          width,
          out: new Float64Array(height),
        };
        width = height;
        return dense;
      });
      if (width !== outputs) throw new Error(`a net gives ${width} numbers where ${outputs} are needed.`);
      for (const [number, { add, out }] of this.layers.entries()) {
        const fits = add === -1 || (add >= 0 && add < number && this.layers[add].out.length === out.length);
        if (!fits) throw new Error(`layer ${number} of a net adds what is not there.`);
      }
    }

    apply(x) {
      let input = this.seen;
      for (let j = 0; j < input.length; j++) input[j] = Math.min(Math.max(x[j], -this.reach), this.reach);
      for (const { weight, bias, relu, add, width, out } of this.layers) {
        for (let i = 0, at = 0; i < out.length; i++) {
          let sum = bias[i];
          for (let j = 0; j < width; j++, at++) {
            const v = input[j];
            if (!relu || v > 0) sum += weight[at] * v;
          }
          out[i] = add < 0 ? sum : sum + this.layers[add].out[i];
        }
        input = out;
      }
      return input;
    }
  }

  // -- layers --------------------------------------------------------------------------------------------

  const numbers = (columns) =>
    (columns.length > 1 ? "columns " : "column ") + columns.map((c) => c + 1).join(", ");

  class Normalize {
    constructor(spec, features) {
      this.loc = vector(spec.loc, features, "loc");
      this.logScale = vector(spec.log_scale, features, "log_scale");
      this.logDet = -this.logScale.reduce((a, b) => a + b, 0);
      this.title = "scale and shift";
    }

    run(v, inverse) {
      for (let i = 0; i < v.length; i++) {
        const scale = Math.exp(this.logScale[i]);
        v[i] = inverse ? v[i] * scale + this.loc[i] : (v[i] - this.loc[i]) / scale;
      }
      return inverse ? -this.logDet : this.logDet;
    }
  }

  class LU {
    constructor(spec, features) {
      this.lower = matrix(spec.lower, features, features, "lower");
      this.upper = matrix(spec.upper, features, features, "upper");
      this.bias = vector(spec.bias, features, "bias");
      this.logDet = 0;
      for (let i = 0; i < features; i++) this.logDet += Math.log(this.upper[i * features + i]);
      if (!Number.isFinite(this.logDet)) throw new Error("upper needs a positive diagonal.");
      this.title = "linear map";
    }

    run(v, inverse) {
      const { lower, upper, bias } = this;
      const D = v.length;
      if (inverse) {
        for (let i = 0; i < D; i++) {
          v[i] -= bias[i];
          for (let j = 0; j < i; j++) v[i] -= lower[i * D + j] * v[j];
        }
        for (let i = D - 1; i >= 0; i--) {
          for (let j = i + 1; j < D; j++) v[i] -= upper[i * D + j] * v[j];
          v[i] /= upper[i * D + i];
        }
        return -this.logDet;
      }
      for (let i = 0; i < D; i++) {
        v[i] *= upper[i * D + i];
        for (let j = i + 1; j < D; j++) v[i] += upper[i * D + j] * v[j];
      }
      for (let i = D - 1; i >= 0; i--) {
        for (let j = 0; j < i; j++) v[i] += lower[i * D + j] * v[j];
      }
      for (let i = 0; i < D; i++) v[i] += bias[i];
      return this.logDet;
    }
  }

  class Permute {
    constructor(spec, features) {
      this.order = indices(spec.order, features, "order");
      if (new Set(this.order).size !== features) throw new Error("order should hold every column once.");
      this.title = "columns change places";
    }

    run(v, inverse) {
      const old = v.slice();
      this.order.forEach((from, to) => (inverse ? (v[from] = old[to]) : (v[to] = old[from])));
      return 0;
    }
  }

  class Pointwise {
    constructor(spec, features) {
      this.family = family(spec.family);
      this.params = matrix(spec.params, features, this.family.numParams, "params");
      this.title = "each column through its own curve";
    }

    run(v, inverse) {
      let logDet = 0;
      for (let i = 0; i < v.length; i++) {
        v[i] = this.family.apply(v[i], this.params, i * this.family.numParams, inverse);
        logDet += this.family.logSlope;
      }
      return logDet;
    }
  }

  class Coupling {
    constructor(spec, features) {
      this.passing = indices(spec.passing, features, "passing");
      this.changing = indices(spec.changing, features, "changing");
      if ([...this.passing, ...this.changing].sort((a, b) => a - b).some((c, i) => c !== i)) {
        throw new Error("a coupling should have every column once.");
      }
      this.family = family(spec.family);
      this.net = new Net(spec.net, this.passing.length, this.changing.length * this.family.numParams);
      this.seen = new Float64Array(this.passing.length);
      const cause = this.passing.length ? `, by what ${numbers(this.passing)} says` : "";
      this.title = `coupling: ${numbers(this.changing)} moves${cause}`;
    }

    run(v, inverse) {
      this.passing.forEach((column, i) => (this.seen[i] = v[column]));
      const params = this.net.apply(this.seen);
      let logDet = 0;
      this.changing.forEach((column, i) => {
        v[column] = this.family.apply(v[column], params, i * this.family.numParams, inverse);
        logDet += this.family.logSlope;
      });
      return logDet;
    }
  }

  class Autoregressive {
    constructor(spec, features) {
      this.order = indices(spec.order, features, "order");
      if (new Set(this.order).size !== features) throw new Error("order should hold every column once.");
      this.family = family(spec.family);
      this.net = new Net(spec.net, features, features * this.family.numParams);
      this.title = "autoregressive: each column by those before it";
    }

    run(v, inverse) {
      const { family, net, order } = this;
      const seen = inverse ? new Float64Array(v.length) : Float64Array.from(order, (column) => v[column]);
      let params = net.apply(seen);
      let logDet = 0;
      for (let i = 0; i < order.length; i++) {
        // backwards, a column's parameters are known once the columns before it are
        if (inverse && i) params = net.apply(seen);
        v[order[i]] = family.apply(v[order[i]], params, i * family.numParams, inverse);
        logDet += family.logSlope;
        if (inverse) seen[i] = v[order[i]];
      }
      return logDet;
    }
  }

  const LAYERS = {
    normalize: Normalize,
    lu: LU,
    permute: Permute,
    pointwise: Pointwise,
    coupling: Coupling,
    autoregressive: Autoregressive,
  };

  // -- the flow ------------------------------------------------------------------------------------------

  /** A flow from its JSON, parsed. The base is a standard normal. */
  class Flow {
    constructor(spec) {
      if (spec?.format !== FORMAT) throw new Error("this is not a file that diffeo.interop.browser_json wrote.");
      if (!(Number.isInteger(spec.features) && spec.features > 0)) {
        throw new Error("features should be 1 or more.");
      }
      if (!Array.isArray(spec.layers)) throw new Error("the file has no layers.");
      this.features = spec.features;
      this.layers = spec.layers.map((layer) => {
        if (!Object.hasOwn(LAYERS, layer?.kind)) throw new Error(`there is no layer ${layer?.kind} here.`);
        return new LAYERS[layer.kind](layer, spec.features);
      });
    }

    /** What each step from latent to data does, in that order. */
    get titles() {
      return this.layers.map((layer) => layer.title).reverse();
    }

    /** Latent z carried through the layers: the points before, between and after, and log|det| so far. */
    path(z) {
      const v = Float64Array.from(z);
      const points = [v.slice()];
      const logDets = [0];
      for (let i = this.layers.length - 1; i >= 0; i--) {
        logDets.push(logDets.at(-1) + this.layers[i].run(v, true));
        points.push(v.slice());
      }
      return { points, logDets };
    }

    toData(z) {
      const v = Float64Array.from(z);
      let logDet = 0;
      for (let i = this.layers.length - 1; i >= 0; i--) logDet += this.layers[i].run(v, true);
      return { value: v, logDet };
    }

    toLatent(x) {
      const v = Float64Array.from(x);
      let logDet = 0;
      for (const layer of this.layers) logDet += layer.run(v, false);
      return { value: v, logDet };
    }

    logBase(z) {
      let sum = 0;
      for (let i = 0; i < z.length; i++) sum -= 0.5 * (z[i] * z[i] + Math.log(2 * Math.PI));
      return sum;
    }

    logProb(x) {
      const { value, logDet } = this.toLatent(x);
      return this.logBase(value) + logDet;
    }
  }

  globalThis.DiffeoPlay = { Flow, models: {} };
})();
