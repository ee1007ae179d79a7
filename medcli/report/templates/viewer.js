"use strict";
(() => {
  const limit = (value, low, high) => Math.min(Math.max(value, low), high);

  /** An <img> for a data URI of this page. */
  const load = (source) => new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = () => failed(new Error("a picture of this page is damaged"));
    image.src = source;
  });

  /** A canvas of its own with a picture in it. */
  const canvasOf = (image) => {
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0);
    return canvas;
  };
  const bytesOf = (canvas) =>
    canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, canvas.width, canvas.height);

  /** Heat 0–255 → a canvas in colour that covers the more, the hotter a place is. */
  const heatOf = (image, stops, opacity) => {
    const canvas = canvasOf(image), data = bytesOf(canvas), bytes = data.data;
    for (let i = 0; i < bytes.length; i += 4) {
      const heat = bytes[i] / 255, place = heat * (stops.length - 1);
      const below = Math.min(Math.floor(place), stops.length - 2), rest = place - below;
      for (let c = 0; c < 3; c += 1)
        bytes[i + c] = stops[below][c] * (1 - rest) + stops[below + 1][c] * rest;
      bytes[i + 3] = 255 * opacity * Math.sqrt(heat);
    }
    canvas.getContext("2d").putImageData(data, 0, 0);
    return canvas;
  };

  class Viewer {
    constructor(root) {
      this.root = root;
      this.data = JSON.parse(document.getElementById(`${root.id}-data`).textContent);
      this.canvas = root.querySelector("canvas");
      this.controls = Object.fromEntries(
        [...root.querySelectorAll("[data-control]")].map((each) => [each.dataset.control, each]));
      this.known = new Map();
      this.own = true; // each slice in the window of its file
      this.place = this.data.first;
      this.listen();
    }

    listen() {
      const on = (name, event, act) => this.controls[name]?.addEventListener(event, act);
      on("slice", "input", (event) => { this.place = Number(event.target.value); this.draw(); });
      const windowed = () => { this.own = false; this.draw(); };
      on("center", "input", windowed);
      on("width", "input", windowed);
      on("heat", "change", () => this.draw());
      for (const button of this.root.querySelectorAll("button[data-center]"))
        button.addEventListener("click", () =>
          this.setWindow(Number(button.dataset.center), Number(button.dataset.width)));
      on("own", "click", () => { this.own = true; this.draw(); });
      if (!this.data.colour) this.dragging();
    }

    /** Dragging over the picture: to the side the width, up and down the level. */
    dragging() {
      let start = null;
      this.canvas.addEventListener("pointerdown", (event) => {
        start = { x: event.clientX, y: event.clientY, ...this.window() };
        this.canvas.setPointerCapture(event.pointerId);
      });
      this.canvas.addEventListener("pointermove", (event) => {
        if (!start) return;
        const scale = (this.data.high - this.data.low) / 400;
        this.setWindow(start.center + scale * (event.clientY - start.y),
          start.width + scale * (event.clientX - start.x));
      });
      for (const end of ["pointerup", "pointercancel"])
        this.canvas.addEventListener(end, () => { start = null; });
    }

    window() {
      const { center, width } = this.controls;
      return { center: Number(center.value), width: Number(width.value) };
    }

    setWindow(center, width) {
      this.own = false;
      this.controls.center.value = center;
      this.controls.width.value = width;
      this.draw();
    }

    /** What is drawn of a slice, decoded once. */
    async slice(place) {
      if (!this.known.has(place)) {
        const { values, heat } = this.data.slices[place], { stops, opacity } = this.data;
        const [image, hot] = await Promise.all([load(values), heat ? load(heat) : null]);
        this.known.set(place, {
          image,
          bytes: this.data.colour ? null : bytesOf(canvasOf(image)).data,
          heat: hot && heatOf(hot, stops, opacity),
        });
      }
      return this.known.get(place);
    }

    async draw() {
      const place = this.place, slice = await this.slice(place);
      if (place !== this.place) return; // another slice was asked for meanwhile
      const told = this.data.slices[place];
      if (this.own && told.ends) {
        this.controls.center.value = (told.ends[0] + told.ends[1]) / 2;
        this.controls.width.value = told.ends[1] - told.ends[0];
      }
      const context = this.canvas.getContext("2d");
      if (this.data.colour) context.drawImage(slice.image, 0, 0, this.canvas.width, this.canvas.height);
      else context.putImageData(this.windowed(slice.bytes), 0, 0);
      if (slice.heat && this.controls.heat?.checked)
        context.drawImage(slice.heat, 0, 0, this.canvas.width, this.canvas.height);
      this.tell(told);
    }

    /** Codes → grey levels through the window. */
    windowed(bytes) {
      const { low, step, width, height, slices, high } = this.data, seen = this.window();
      const [black, white] = this.own && slices[this.place].ends
        ? slices[this.place].ends
        : [seen.center - seen.width / 2, seen.center + seen.width / 2];
      const grey = new ImageData(width, height), scale = 255 / Math.max(white - black, 1e-9);
      const wide = (high - low) / step > 255; // two bytes a code
      for (let i = 0; i < bytes.length; i += 4) {
        const code = wide && bytes[i + 2] === 0 ? bytes[i] * 256 + bytes[i + 1] : bytes[i];
        const level = limit((low + step * code - black) * scale, 0, 255);
        grey.data[i] = grey.data[i + 1] = grey.data[i + 2] = level;
        grey.data[i + 3] = 255;
      }
      return grey;
    }

    tell(told) {
      const say = (name, text) => {
        const output = this.root.querySelector(`[data-says="${name}"]`);
        if (output) output.textContent = text;
      };
      const unit = this.data.unit && ` ${this.data.unit}`;
      const share = told.share === null ? "" : `, ${Math.round(100 * told.share)} % of the heat`;
      say("slice", `${told.number} of 0–${this.data.count - 1}${share}`);
      if (!this.data.colour) {
        const { center, width } = this.window();
        const digits = this.data.high - this.data.low > 20 ? 0 : 2;
        say("center", center.toFixed(digits) + unit);
        say("width", width.toFixed(digits) + unit);
      }
      if (this.controls.slice) {
        this.controls.slice.value = this.place;
        this.controls.slice.setAttribute("aria-valuetext", `slice ${told.number}${share}`);
      }
      this.root.dataset.slice = told.number;
    }
  }

  const start = async () => {
    for (const root of document.querySelectorAll(".viewer")) {
      const viewer = new Viewer(root);
      await viewer.draw();
      root.classList.add("live");
    }
    document.documentElement.dataset.viewers = "ready";
  };
  start();
})();
