// Draws the charts of a prefdyn report from the numbers embedded in the page. Asks for nothing from outside.
(() => {
  "use strict";
  const page = document.documentElement;
  let errors = 0;
  let drawn = 0;
  const tell = () => {
    page.dataset.errors = String(errors);
    page.dataset.chartsDrawn = String(drawn);
  };
  const failed = () => {
    errors += 1;
    tell();
  };
  addEventListener("error", failed);
  addEventListener("unhandledrejection", failed);
  document.addEventListener("securitypolicyviolation", failed);
  page.classList.add("js");

  // ---- small tools ----------------------------------------------------------------------------------------------
  const SPACE = "http://www.w3.org/2000/svg";
  function svg(name, attributes, parent, text) {
    const node = document.createElementNS(SPACE, name);
    for (const key in attributes) {
      const value = attributes[key];
      if (value !== null && value !== undefined) node.setAttribute(key, typeof value === "number" ? trim(value) : value);
    }
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }
  function html(name, attributes, parent, text) {
    const node = document.createElement(name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }
  const trim = (value) => String(Math.round(value * 100) / 100);
  const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

  function format(value, digits = 3) {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    let text;
    if (size !== 0 && (size < 1e-4 || size >= 1e6)) text = value.toExponential(2).replace("e+", "e");
    else if (size >= 1000) text = Math.round(value).toLocaleString("en-US");
    else text = String(Number(value.toPrecision(digits)));
    return text.replaceAll("-", "−");
  }

  const ruler = document.createElement("canvas").getContext("2d");
  const family = getComputedStyle(document.body).fontFamily;
  const widths = new Map();
  function measure(text, size) {
    const key = `${size}|${text}`;
    if (!widths.has(key)) {
      ruler.font = `${size}px ${family}`;
      widths.set(key, ruler.measureText(text).width);
    }
    return widths.get(key);
  }
  const splitter = typeof Intl !== "undefined" && Intl.Segmenter ? new Intl.Segmenter() : null;
  const letters = (text) => (splitter ? Array.from(splitter.segment(text), (part) => part.segment) : Array.from(text));
  // What does not fit loses its middle, since the ends tell names apart.
  function fit(text, room, size = 11.5) {
    if (measure(text, size) <= room) return text;
    const parts = letters(text.length > 400 ? `${text.slice(0, 200)}${text.slice(-200)}` : text);
    let low = 0;
    let high = parts.length;
    const shape = (count) => parts.slice(0, Math.ceil(count / 2)).join("") + "…" + parts.slice(parts.length - Math.floor(count / 2)).join("");
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (measure(shape(middle), size) <= room) low = middle;
      else high = middle - 1;
    }
    return shape(low);
  }

  function ticks(low, high, count, whole = false) {
    const span = high - low || 1;
    const raw = Math.max(span / Math.max(1, count), whole ? 1 : 0);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((scale) => scale * power).find((size) => size >= raw * 0.999 && (!whole || size % 1 === 0));
    const found = [];
    for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) found.push(place * step);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (String(step / power).startsWith("2.5") ? 1 : 0));
    return found.map((value) => ({
      value,
      text: (step < 1e-4 ? format(value) : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })).replace("-", "−").replace(/^−(0(\.0+)?)$/, "$1"),
    }));
  }
  function logTicks(low, high) {
    const every = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      for (const scale of high > 1000 * low ? [1] : [1, 2, 5]) every.push(scale * 10 ** power);
    }
    return every.filter((value) => value >= low && value <= high).map((value) => ({ value, text: format(value) }));
  }
  function stepTicks(last, room) {
    const every = [0];
    for (let power = 1; power <= last; power *= 10) for (const scale of [1, 2, 5]) if (scale * power <= last) every.push(scale * power);
    const place = (step) => (Math.log10(1 + step) / Math.log10(1 + last)) * room;
    const kept = [];
    let free = -Infinity;
    for (const step of every) {
      const half = measure(step.toLocaleString("en-US"), 11.5) / 2;
      if (place(step) - half < free) continue;
      kept.push(step);
      free = place(step) + half + 8;
    }
    return kept;
  }
  function extent(values, low = Infinity, high = -Infinity) {
    for (const value of values) {
      if (known(value)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    return [low, high];
  }
  const scale = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
  function path(points) {
    let text = "";
    let pen = false;
    for (const [x, y] of points) {
      if (known(x) && known(y)) text += `${pen ? "L" : "M"}${trim(x)} ${trim(y)}`;
      pen = known(x) && known(y);
    }
    return text;
  }

  // ---- the tip --------------------------------------------------------------------------------------------------
  const tip = document.getElementById("tip");
  function showTip(event, title, rows) {
    tip.textContent = "";
    if (title) html("bdi", {}, html("b", {}, tip), title);
    for (const [label, value] of rows) {
      const row = html("div", {}, tip);
      html("span", {}, row, label);
      html("span", {}, row, value);
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    let x = event.clientX + 14;
    if (x + box.width > innerWidth - 8) x = Math.max(8, event.clientX - box.width - 14);
    let y = event.clientY + 16;
    if (y + box.height > innerHeight - 8) y = Math.max(8, event.clientY - box.height - 16);
    tip.style.left = `${x}px`;
    tip.style.top = `${y}px`;
  }
  const hideTip = () => {
    tip.hidden = true;
  };
  // What to do when the reader turns away from the plot that was read last.
  let leaveLast = hideTip;
  let scrolling = 0;
  addEventListener("scroll", () => Date.now() > scrolling && leaveLast(), { passive: true });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest || !event.target.closest(".drawing")) leaveLast();
  });

  // A transparent sheet over the plot that reports where the pointer is, in the drawing's own units. For the keyboard,
  // `stops` lists places from left to right, {x, marks: [{y, pick}]}: arrow keys go from one to the next.
  function sheet(root, x, y, width, height, move, leave, tap, stops) {
    const area = svg("rect", { x, y, width: Math.max(0, width), height: Math.max(0, height), fill: "transparent" }, root);
    const at = (event) => {
      const box = root.getBoundingClientRect();
      const view = root.viewBox.baseVal;
      return [((event.clientX - box.left) / box.width) * view.width, ((event.clientY - box.top) / box.height) * view.height];
    };
    const gone = () => {
      hideTip();
      leave();
    };
    const come = (event, px, py) => {
      if (leaveLast !== gone) leaveLast();
      leaveLast = gone;
      move(event, px, py);
    };
    area.addEventListener("pointermove", (event) => come(event, ...at(event)));
    area.addEventListener("pointerdown", (event) => come(event, ...at(event)));
    area.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") gone();
    });
    area.addEventListener("pointercancel", gone);
    if (tap) area.addEventListener("click", (event) => tap(event, ...at(event)));
    if (stops) walk(root, come, gone, tap, stops.filter((stop) => stop.marks.length));
    return area;
  }
  function walk(root, come, gone, tap, stops) {
    if (!stops.length) return;
    root.setAttribute("tabindex", "0");
    let place = stops.length - 1;
    let mark = null;
    root.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-Infinity, 0], End: [Infinity, 0] }[event.key];
      if (event.key === "Escape") gone();
      const pins = event.key === "Enter" && tap && mark;
      if (!way && !pins) return;
      event.preventDefault();
      if (!mark) [mark] = stops[place].marks;
      else if (way && way[0]) {
        place = clamp(place + way[0], 0, stops.length - 1);
        const { marks } = stops[place];
        const last = mark;
        mark = marks.find((other) => other.pick === last.pick) || marks.reduce((best, other) => (Math.abs(other.y - last.y) < Math.abs(best.y - last.y) ? other : best));
      } else if (way) {
        const { marks } = stops[place];
        mark = marks[clamp(marks.indexOf(mark) + way[1], 0, marks.length - 1)];
      }
      const where = () => {
        const box = root.getBoundingClientRect();
        const view = root.viewBox.baseVal;
        return { clientX: box.left + (stops[place].x / view.width) * box.width, clientY: box.top + (mark.y / view.height) * box.height, pick: mark.pick };
      };
      const { clientY } = where();
      if (clientY < 40 || clientY > innerHeight - 40) {
        scrolling = Date.now() + 400;
        scrollBy({ top: clientY - innerHeight / 2, behavior: "instant" });
      }
      if (pins) {
        const { drawing } = tap(where(), stops[place].x, mark.y);
        gone();
        return drawing.querySelector("svg").focus();
      }
      come(where(), stops[place].x, mark.y);
    });
    root.addEventListener("blur", () => leaveLast === gone && gone());
  }

  function canvas(chart, height, width = chart.width) {
    chart.drawing.textContent = "";
    return svg("svg", { viewBox: `0 0 ${trim(width)} ${trim(height)}`, role: "img", "aria-label": chart.label }, chart.drawing);
  }

  // ---- controls -------------------------------------------------------------------------------------------------
  function segments(chart, label, names, chosen, change) {
    if (names.length < 2) return;
    const box = html("div", { class: "segments", role: "group", "aria-label": label }, chart.controls);
    names.forEach((name, place) => {
      const button = html("button", { type: "button", "aria-pressed": String(place === chosen) }, box, name);
      button.addEventListener("click", () => {
        for (const other of box.children) other.setAttribute("aria-pressed", String(other === button));
        change(place);
        chart.draw();
      });
    });
  }
  function toggle(chart, name, state, change) {
    const button = html("button", { type: "button", class: "plain", "aria-pressed": String(state) }, chart.controls, name);
    button.addEventListener("click", () => {
      const now = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(now));
      change(now);
      chart.draw();
    });
  }
  function orderPicker(chart, panel, change) {
    if (panel.orders.length < 2 || chart.run.groups.length < 2) return;
    const label = html("label", {}, chart.controls, "Order ");
    const select = html("select", {}, label);
    panel.orders.forEach((order, place) => html("option", { value: String(place) }, select, order.label));
    select.addEventListener("change", () => {
      change(Number(select.value));
      chart.draw();
    });
  }
  function groupLegend(chart, hidden, round, measured = () => true) {
    const { groups, colours } = chart.run;
    const coloured = colours.map((place, code) => [place, code]).filter(([place, code]) => place >= 0 && measured(code)).sort((a, b) => a[0] - b[0]);
    const entries = coloured.map(([place, code]) => ({ name: groups[code].name, colour: `g${place}`, codes: [code] }));
    const rest = colours.map((place, code) => [place, code]).filter(([place, code]) => place < 0 && measured(code)).map(([, code]) => code);
    if (rest.length) entries.push({ name: `${rest.length} other groups`, colour: "", codes: rest });
    if (entries.length < 2) return;
    for (const entry of entries) {
      const button = html("button", { type: "button", "aria-pressed": "true", title: `Show or hide ${entry.name.slice(0, 200)}` }, chart.legend);
      html("i", { class: `${entry.colour} ${round ? "round" : ""}` }, button);
      html("bdi", {}, button, entry.name);
      button.addEventListener("click", () => {
        const show = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(show));
        for (const code of entry.codes) show ? hidden.delete(code) : hidden.add(code);
        chart.draw();
      });
      if (chart.touch) {
        button.addEventListener("pointerenter", () => chart.touch(entry.codes.length === 1 ? entry.codes[0] : null));
        button.addEventListener("pointerleave", () => chart.touch(null));
      }
    }
  }
  const colourClass = (run, code) => (run.colours[code] >= 0 ? `g${run.colours[code]}` : "rest");

  // ---- curves ---------------------------------------------------------------------------------------------------
  function linesChart(chart, panel) {
    const { groups, colours } = chart.run;
    const steps = panel.arrays.step;
    const last = steps[steps.length - 1];
    const hidden = new Set();
    const pinned = new Set();
    const few = colours.filter((place) => place >= 0).length <= 3;
    const dashed = panel.options.dashed || "trained alone";
    const state = { view: 0, alone: panel.layers.some((layer) => layer.alone) && (few || dashed !== "trained alone") };
    segments(chart, "Which curves", panel.layers.map((layer) => layer.label), 0, (place) => (state.view = place));
    if (panel.layers.some((layer) => layer.alone)) toggle(chart, `${dashed[0].toUpperCase()}${dashed.slice(1)} (dashed)`, state.alone, (now) => (state.alone = now));
    const measured = (code) => panel.layers.some((layer) => panel.arrays[layer.values][code].some(known));
    const grey = colours.some((place, code) => place < 0 && measured(code));
    if (grey) {
      const label = html("label", {}, chart.controls, "Also show ");
      const select = html("select", {}, label);
      html("option", { value: "" }, select, "a group…");
      groups.map((group, code) => [group.name, code]).filter(([, code]) => colours[code] < 0 && measured(code))
        .sort((a, b) => (a[0] < b[0] ? -1 : 1))
        .forEach(([name, code]) => html("option", { value: String(code) }, select, name.slice(0, 120)));
      select.addEventListener("change", () => {
        if (select.value === "") pinned.clear();
        else pinned.add(Number(select.value));
        chart.draw();
      });
    }

    chart.draw = () => {
      const layer = panel.layers[state.view];
      const values = panel.arrays[layer.values];
      const alone = layer.alone ? panel.arrays[layer.alone] : null;
      const width = chart.width;
      const wide = width >= 680;
      const height = chart.printing ? 300 : wide ? 400 : 290;
      const shown = groups.map((_, code) => code).filter((code) => !hidden.has(code) && values[code].some(known));
      const bold = shown.filter((code) => colours[code] >= 0 || pinned.has(code));
      const thin = shown.filter((code) => !bold.includes(code));
      let [low, high] = extent(shown.flatMap((code) => values[code]));
      if (state.alone && alone) [low, high] = extent(bold.flatMap((code) => alone[code]), low, high);
      // A single group has room for its other view beside the chosen one.
      const mates = groups.length === 1 ? panel.layers.filter((other) => other !== layer && other.axis === layer.axis) : [];
      for (const mate of mates) [low, high] = extent(panel.arrays[mate.values][0], low, high);
      for (const line of panel.lines) [low, high] = extent([line.at], low, high);
      if (known(panel.options.low)) low = Math.min(low, panel.options.low);
      if (known(panel.options.high)) high = Math.max(high, panel.options.high);
      if (!Number.isFinite(low)) [low, high] = [0, 1];
      const pad = (high - low || Math.abs(high) || 1) * 0.04;
      if (low !== panel.options.low) low -= pad;
      if (high !== panel.options.high) high += pad;
      const marks = ticks(low, high, wide ? 6 : 5);
      const left = Math.max(...marks.map((mark) => measure(mark.text, 11.5)), 10) + 12;
      const ends = wide && bold.length > 0 && groups.length > 1;
      const room = ends ? Math.min(210, Math.max(...bold.map((code) => measure(groups[code].name, 11.5))) * 1.1 + 26) : 8;
      const named = layer.axis || panel.y;
      const words = mates.map((mate) => `dashed: ${mate.label.toLowerCase()}`);
      words.push(...panel.lines.filter((line) => line.label !== "0").map((line) => `dotted: ${line.label}`));
      const oneLine = measure([named, ...words].join(" · "), 12) <= width;
      const top = oneLine || !words.length ? 26 : 42;
      const bottom = 42;
      const right = width - room;
      const x = (step) => left + (Math.log10(1 + step) / Math.log10(1 + last)) * (right - left);
      const y = scale(low, high, height - bottom, top);
      const root = canvas(chart, height);
      svg("text", { class: "axis", x: 0, y: 12 }, root, oneLine ? [named, ...words].join(" · ") : named);
      if (!oneLine && words.length) svg("text", { class: "axis", x: 0, y: 28 }, root, fit(words.join(" · "), width, 12));
      for (const mark of marks) {
        svg("line", { class: "grid", x1: left, x2: right, y1: y(mark.value), y2: y(mark.value) }, root);
        svg("text", { x: left - 8, y: y(mark.value) + 4, "text-anchor": "end" }, root, mark.text);
      }
      svg("line", { class: "base", x1: left, x2: right, y1: height - bottom, y2: height - bottom }, root);
      for (const step of stepTicks(last, right - left)) {
        svg("line", { class: "base", x1: x(step), x2: x(step), y1: height - bottom, y2: height - bottom + 4 }, root);
        svg("text", { x: x(step), y: height - bottom + 17, "text-anchor": "middle" }, root, step.toLocaleString("en-US"));
      }
      svg("text", { class: "axis", x: (left + right) / 2, y: height - 5, "text-anchor": "middle" }, root, panel.x);
      for (const line of panel.lines) svg("line", { class: "mark", x1: left, x2: right, y1: y(line.at), y2: y(line.at) }, root);
      const measured = (series) => steps.map((_, place) => place).filter((place) => series.some((each) => known(each[place])));
      const curve = (series, code) => path(measured(series).map((place) => [x(steps[place]), known(series[code][place]) ? y(series[code][place]) : null]));
      for (const code of thin) svg("path", { class: "curve rest", d: curve(values, code) }, root);
      for (const mate of mates) svg("path", { class: `curve with ${colourClass(chart.run, 0)}`, d: curve(panel.arrays[mate.values], 0) }, root);
      for (const code of bold) {
        const colour = colourClass(chart.run, code);
        if (state.alone && alone) svg("path", { class: `curve with ${colour}`, d: curve(alone, code) }, root);
      }
      for (const code of bold) svg("path", { class: `curve ${colourClass(chart.run, code)} ${pinned.has(code) ? "hot" : ""}`, d: curve(values, code) }, root);
      if (ends) {
        const lastKnown = (code) => values[code].reduce((found, value, place) => (known(value) ? place : found), -1);
        const labels = bold.map((code) => ({ code, at: y(values[code][lastKnown(code)]) })).sort((a, b) => a.at - b.at);
        const gap = Math.min(15, (height - bottom - top) / Math.max(1, labels.length));
        labels.forEach((label, place) => (label.y = place ? Math.max(label.at, labels[place - 1].y + gap) : Math.max(label.at, top)));
        for (let place = labels.length - 1, floor = height - bottom; place >= 0; place -= 1) {
          labels[place].y = Math.min(labels[place].y, floor);
          floor = labels[place].y - gap;
        }
        for (const label of labels) {
          const colour = colourClass(chart.run, label.code);
          svg("path", { class: `leader ${colour}`, d: `M${trim(right + 3)} ${trim(label.at)}L${trim(right + 14)} ${trim(label.y)}` }, root);
          svg("text", { class: `end ${colour}`, x: right + 18, y: label.y + 4 }, root, fit(groups[label.code].name, (room - 22) / 1.1));
        }
      }
      const front = svg("g", {}, root);
      const heat = (code, place) => {
        front.textContent = "";
        if (code === null || !shown.includes(code)) return;
        const colour = colourClass(chart.run, code);
        if (alone) svg("path", { class: `curve hot with ${colour}`, d: curve(alone, code) }, front);
        svg("path", { class: `curve hot ${colour}`, d: curve(values, code) }, front);
        if (place !== null && known(values[code][place])) {
          svg("circle", { class: `spot ${colour}`, cx: x(steps[place]), cy: y(values[code][place]), r: 5 }, front);
        }
      };
      chart.touch = (code) => heat(code, null);
      const nearest = (px, py) => {
        let [place] = measured(values);
        for (const candidate of measured(values)) if (Math.abs(x(steps[candidate]) - px) < Math.abs(x(steps[place]) - px)) place = candidate;
        let found = null;
        let best = Infinity;
        for (const code of shown) {
          if (!known(values[code][place])) continue;
          const distance = Math.abs(y(values[code][place]) - py) - (bold.includes(code) ? 3 : 0);
          if (distance < best) [found, best] = [code, distance];
        }
        return [found, place];
      };
      sheet(
        root, left, top, right - left + 12, height - top - bottom,
        (event, px, py) => {
          const [near, place] = nearest(px, py);
          const code = event.pick === undefined ? near : event.pick;
          heat(code, place);
          if (code === null) return hideTip();
          const rows = [[`step ${steps[place].toLocaleString("en-US")}`, format(values[code][place])]];
          for (const mate of mates) rows.push([mate.label.toLowerCase(), format(panel.arrays[mate.values][code][place])]);
          if (alone && known(alone[code][place])) rows.push([dashed, format(alone[code][place])]);
          if (groups[code].says) rows.push(["verdict", groups[code].says]);
          showTip(event, groups[code].name, rows);
        },
        () => heat(null, null),
        (event, px, py) => {
          const code = event.pick === undefined ? nearest(px, py)[0] : event.pick;
          if (event.pointerType === "touch" || code === null) return chart;
          pinned.has(code) ? pinned.delete(code) : pinned.add(code);
          chart.draw();
          return chart;
        },
        steps.map((step, place) => ({
          x: x(step),
          marks: shown.filter((code) => known(values[code][place])).map((code) => ({ y: y(values[code][place]), pick: code })).sort((a, b) => a.y - b.y),
        })),
      );
    };
    groupLegend(chart, hidden, false, measured);
  }

  // ---- dots and intervals, one row per group ----------------------------------------------------------------------
  function symbol(root, marker, x, y, extra = "") {
    const place = `s-${marker} ${extra}`;
    if (marker === "dot") svg("circle", { class: `fill ${place}`, cx: x, cy: y, r: 4.2 }, root);
    if (marker === "ring") svg("circle", { class: `hollow ${place}`, cx: x, cy: y, r: 3.8 }, root);
    if (marker === "tick") svg("path", { class: `stroke ${place}`, d: `M${trim(x)} ${trim(y - 5.5)}V${trim(y + 5.5)}` }, root);
    if (marker === "cross") svg("path", { class: `stroke ${place}`, d: `M${trim(x - 3)} ${trim(y - 3)}l6 6m0 -6l-6 6` }, root);
    if (marker === "triangle") svg("path", { class: `fill ${place}`, d: `M${trim(x)} ${trim(y - 4.6)}l4.6 8h-9.2z` }, root);
    if (marker === "diamond") svg("path", { class: `fill ${place}`, d: `M${trim(x)} ${trim(y - 4.8)}l4.8 4.8l-4.8 4.8l-4.8 -4.8z` }, root);
  }
  function dotsChart(chart, panel) {
    const { groups } = chart.run;
    const written = { share: (value) => (known(value) ? `${(100 * value).toFixed(0)} %` : "–"), number: (value) => format(value) };
    const series = panel.layers.filter((layer) => !(layer.marker in written));
    const columns = panel.layers.filter((layer) => layer.marker in written);
    const state = { order: 0, all: groups.length <= 30 };
    orderPicker(chart, panel, (place) => (state.order = place));
    if (!state.all) toggle(chart, `Show all ${groups.length}`, false, (now) => (state.all = now));
    if (series.length > 1) {
      for (const layer of series) {
        const key = html("span", { class: "key" }, chart.legend);
        symbol(svg("svg", { viewBox: "0 0 16 14" }, key), layer.marker, 8, 7);
        html("span", {}, key, layer.label);
      }
    }
    chart.draw = () => {
      const all = state.all || chart.printing;
      const codes = panel.orders[state.order].codes;
      const rows = all ? codes : [...codes.slice(0, 12), null, ...codes.slice(-12)];
      const width = chart.width;
      const wide = width >= 560;
      const onePage = clamp(670 / rows.length, 7.4, 23);
      const pitch = chart.printing ? onePage : wide ? (rows.length > 60 ? 17 : 23) : 38;
      const font = Math.min(11.5, pitch);
      chart.figure.classList.toggle("tall", pitch * rows.length > 760);
      const nameRoom = Math.min(300, Math.max(...groups.map((group) => measure(group.name, 11.5))) + 14);
      const left = wide ? nameRoom : 8;
      // What is written at the end of each row stands in columns of its own, the first of them leftmost.
      const texts = columns.map((layer) => panel.arrays[layer.values].map(written[layer.marker]));
      const rooms = columns.map((layer, place) => Math.max(measure(layer.axis, 11), ...texts[place].map((text) => measure(text, 11.5))) + 14);
      const ends = rooms.map((_, place) => width - rooms.slice(place + 1).reduce((sum, room) => sum + room, 0));
      const right = width - 14 - rooms.reduce((sum, room) => sum + room, 0);
      const top = columns.length ? 24 : 8;
      const bottom = 44;
      const height = top + pitch * rows.length + bottom;
      const every = series.flatMap((layer) => [layer.values, ...(layer.told ? [] : [layer.low, layer.high])].filter(Boolean).flatMap((name) => panel.arrays[name]));
      let [low, high] = extent(every);
      if (!Number.isFinite(low)) [low, high] = [0, 1];
      if (panel.options.zero || panel.options.low === 0) [low, high] = [Math.min(0, low), Math.max(0, high)];
      const across = panel.options.log ? Math.log10 : Number;
      const pad = panel.options.log ? 0 : (high - low || 1) * 0.03;
      if (low !== panel.options.low && low !== 0) low -= pad;
      if (high !== panel.options.high && high !== 0) high += pad;
      const along = scale(across(low), across(high), left + (wide ? 6 : 0), right);
      const x = (value) => along(across(value));
      const root = canvas(chart, height);
      const highlight = svg("rect", { class: "row-hot", x: 0, width, y: 0, height: pitch, rx: 4, visibility: "hidden" }, root);
      const end = top + pitch * rows.length;
      const marks = panel.options.log ? logTicks(low, high) : ticks(low, high, clamp(Math.floor((right - left) / 80), 4, 8), panel.options.whole);
      for (const mark of marks) {
        svg("line", { class: "grid", x1: x(mark.value), x2: x(mark.value), y1: top, y2: end + 4 }, root);
        svg("text", { x: x(mark.value), y: end + 18, "text-anchor": "middle" }, root, mark.text);
      }
      svg("text", { class: "axis", x: wide ? (x(low) + right) / 2 : width / 2, y: end + 37, "text-anchor": "middle" }, root, panel.x);
      for (const line of panel.lines) svg("line", { class: "base", x1: x(line.at), x2: x(line.at), y1: top, y2: end }, root);
      columns.forEach((layer, place) => svg("text", { class: "hint", x: ends[place], y: 12, "text-anchor": "end" }, root, layer.axis));
      rows.forEach((code, place) => {
        const middle = top + pitch * place + pitch / 2;
        if (code === null) {
          svg("text", { class: "hint", x: wide ? left - 10 : 0, y: middle + 4, "text-anchor": wide ? "end" : "start" }, root, `… ${codes.length - 24} between …`);
          return;
        }
        const y = wide ? middle : middle + 8;
        if (wide) svg("text", { class: "name", x: left - 10, y: y + 4, "text-anchor": "end" }, root, fit(groups[code].name, nameRoom - 12)).style.fontSize = `${font}px`;
        else svg("text", { class: "name halo", x: 0, y: middle - 5 }, root, fit(groups[code].name, width - 4));
        svg("line", { class: "grid", x1: x(low), x2: right, y1: y, y2: y }, root);
        columns.forEach((_, column) => svg("text", { x: ends[column], y: y + 4, "text-anchor": "end" }, root, texts[column][code]).style.fontSize = `${font}px`);
        for (const layer of series) {
          if (!layer.low || layer.told) continue;
          const [from, to] = [panel.arrays[layer.low][code], panel.arrays[layer.high][code]];
          if (known(from) && known(to)) svg("line", { class: `range s-${layer.marker}`, x1: x(from), x2: Math.max(x(to), x(from) + 0.5), y1: y, y2: y }, root);
        }
        for (const layer of [...series].reverse()) {
          const value = panel.arrays[layer.values][code];
          if (known(value)) symbol(root, layer.marker, x(value), y);
        }
        if (series.every((layer) => !known(panel.arrays[layer.values][code]))) {
          svg("text", { class: "hint", x: x(low) + 6, y: y + 4 }, root, "not measured");
        }
      });
      sheet(
        root, 0, top, width, end - top,
        (event, px, py) => {
          const place = clamp(Math.floor((py - top) / pitch), 0, rows.length - 1);
          const code = rows[place];
          if (code === null) return;
          highlight.setAttribute("y", trim(top + pitch * place));
          highlight.setAttribute("visibility", "visible");
          const lines = panel.layers.map((layer) => {
            const interval = layer.low && known(panel.arrays[layer.low][code]) ? ` (${format(panel.arrays[layer.low][code])} to ${format(panel.arrays[layer.high][code])})` : "";
            return [layer.label, (written[layer.marker] || format)(panel.arrays[layer.values][code]) + interval];
          });
          if (groups[code].says) lines.push(["verdict", groups[code].says]);
          showTip(event, groups[code].name, lines);
        },
        () => highlight.setAttribute("visibility", "hidden"),
        null,
        [{ x: (left + right) / 2, marks: rows.map((code, place) => ({ y: top + pitch * (place + 0.5), pick: code })).filter((mark) => mark.pick !== null) }],
      );
    };
  }

  // ---- one dot per group ------------------------------------------------------------------------------------------
  // Verdicts differ in shape as well as in colour.
  function shape(root, group, x, y) {
    const paths = {
      round: "m-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z", square: "m-4.5 -4.5h9v9h-9z", diamond: "m0 -6l6 6l-6 6l-6 -6z",
      up: "m0 -5.6l5.6 10h-11.2z", down: "m0 5.6l5.6 -10h-11.2z",
    };
    svg("path", { class: `dot v-${group.verdict} ${group.filled ? "" : "empty"}`, d: `M${trim(x)} ${trim(y)}${paths[group.shape]}` }, root);
  }
  function scatterChart(chart, panel) {
    const { groups, colours } = chart.run;
    const height = panel.arrays.decrease;
    const state = { view: 0 };
    const hidden = new Set();
    segments(chart, "Measured before training", panel.layers.map((layer) => layer.label), 0, (place) => (state.view = place));
    const looks = new Map();
    for (const group of [...groups].sort((a, b) => a.place - b.place)) looks.set(group.verdict, group.says);
    if (looks.size > 1) {
      for (const [look, says] of looks) {
        const button = html("button", { type: "button", "aria-pressed": "true" }, chart.legend);
        shape(svg("svg", { viewBox: "0 0 16 14" }, button), groups.find((group) => group.verdict === look), 8, 7);
        html("span", {}, button, says);
        button.addEventListener("click", () => {
          const show = button.getAttribute("aria-pressed") !== "true";
          button.setAttribute("aria-pressed", String(show));
          show ? hidden.delete(look) : hidden.add(look);
          chart.draw();
        });
      }
    }
    chart.draw = () => {
      const layer = panel.layers[state.view];
      const across = panel.arrays[layer.values];
      const width = chart.width;
      const wide = width >= 560;
      const tall = chart.printing ? 330 : wide ? 420 : 320;
      const shown = groups.map((_, code) => code).filter((code) => known(across[code]) && known(height[code]) && !hidden.has(groups[code].verdict));
      const spread = (values) => {
        let [low, high] = extent(values);
        if (!Number.isFinite(low)) [low, high] = [0, 1];
        const pad = (high - low || Math.abs(high) || 1) * 0.06;
        return [low - pad, high + pad];
      };
      const [x0, x1] = spread(across);
      const [y0, y1] = spread(height);
      const marks = ticks(y0, y1, 6);
      const left = Math.max(...marks.map((mark) => measure(mark.text, 11.5))) + 12;
      const top = 44;
      const bottom = 44;
      const right = width - 12;
      const x = scale(x0, x1, left, right);
      const y = scale(y0, y1, tall - bottom, top);
      const root = canvas(chart, tall);
      svg("text", { class: "name", x: 0, y: 13 }, root, fit(layer.note, width));
      svg("text", { class: "axis", x: 0, y: 33 }, root, panel.y);
      for (const mark of marks) {
        svg("line", { class: "grid", x1: left, x2: right, y1: y(mark.value), y2: y(mark.value) }, root);
        svg("text", { x: left - 8, y: y(mark.value) + 4, "text-anchor": "end" }, root, mark.text);
      }
      for (const mark of ticks(x0, x1, clamp(Math.floor((right - left) / 80), 4, 8))) {
        svg("line", { class: "grid", x1: x(mark.value), x2: x(mark.value), y1: top, y2: tall - bottom }, root);
        svg("text", { x: x(mark.value), y: tall - bottom + 16, "text-anchor": "middle" }, root, mark.text);
      }
      svg("text", { class: "axis", x: (left + right) / 2, y: tall - 6, "text-anchor": "middle" }, root, layer.axis);
      if (y0 < 0 && y1 > 0) svg("line", { class: "base", x1: left, x2: right, y1: y(0), y2: y(0) }, root);
      if (x0 < 0 && x1 > 0) svg("line", { class: "base", x1: x(0), x2: x(0), y1: top, y2: tall - bottom }, root);
      for (const code of shown) shape(root, groups[code], x(across[code]), y(height[code]));
      // Names for the telling groups, where they hide neither a dot nor another name.
      const taken = shown.map((code) => [x(across[code]) - 5, y(height[code]) - 5, x(across[code]) + 5, y(height[code]) + 5]);
      const clash = (box) => taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1]);
      for (const code of shown.filter((code) => colours[code] >= 0).sort((a, b) => colours[a] - colours[b])) {
        const text = fit(groups[code].name, wide ? 190 : 110, 11);
        const size = measure(text, 11.5);
        const [px, py] = [x(across[code]), y(height[code])];
        for (const [dx, dy, anchor] of [[9, 4, "start"], [-9, 4, "end"], [0, -10, "middle"], [0, 18, "middle"]]) {
          const start = anchor === "start" ? px + dx : anchor === "end" ? px + dx - size : px - size / 2;
          const box = [start, py + dy - 10, start + size, py + dy + 3];
          if (box[0] < left || box[2] > right || box[1] < top || box[3] > tall - bottom || clash(box)) continue;
          taken.push(box);
          svg("text", { class: "name", x: px + dx, y: py + dy, "text-anchor": anchor }, root, text);
          break;
        }
      }
      const ring = svg("circle", { class: "cross", r: 8.5, visibility: "hidden" }, root);
      sheet(
        root, left, top, right - left, tall - top - bottom,
        (event, px, py) => {
          let found = event.pick === undefined ? null : event.pick;
          let best = found === null ? 900 : -1;
          for (const code of shown) {
            const distance = (x(across[code]) - px) ** 2 + (y(height[code]) - py) ** 2;
            if (distance < best) [found, best] = [code, distance];
          }
          if (found === null) {
            ring.setAttribute("visibility", "hidden");
            return hideTip();
          }
          ring.setAttribute("cx", trim(x(across[found])));
          ring.setAttribute("cy", trim(y(height[found])));
          ring.setAttribute("visibility", "visible");
          const rows = [[layer.label.toLowerCase(), format(across[found])], ["loss decrease", format(height[found])]];
          if (groups[found].says) rows.push(["verdict", groups[found].says]);
          showTip(event, groups[found].name, rows);
        },
        () => ring.setAttribute("visibility", "hidden"),
        null,
        [...shown].sort((a, b) => across[a] - across[b]).map((code) => ({ x: x(across[code]), marks: [{ y: y(height[code]), pick: code }] })),
      );
    };
  }

  // ---- groups against groups --------------------------------------------------------------------------------------
  const SHADES = 20;
  function shade(value, limit) {
    const step = Math.min(SHADES, Math.round((Math.abs(value) / limit) * SHADES));
    return `${value < 0 ? "hn" : "hp"}${step}`;
  }
  function heatChart(chart, panel) {
    const { groups } = chart.run;
    const m = groups.length;
    const state = { view: 0, order: 0 };
    segments(chart, "Which values", panel.layers.map((layer) => layer.label), 0, (place) => (state.view = place));
    orderPicker(chart, panel, (place) => (state.order = place));
    const note = html("p", { class: "note" });
    chart.drawing.before(note);
    const key = html("div", { class: "scale" }, chart.legend);
    chart.draw = () => {
      const layer = panel.layers[state.view];
      const matrix = panel.arrays[layer.values];
      const codes = panel.orders[state.order].codes;
      const width = chart.width;
      const limit = layer.limit || 1;
      const longest = Math.max(...groups.map((group) => measure(group.name, 11.5))) + 14;
      let names = Math.min(longest, width >= 680 ? 230 : 118);
      let cell = Math.min(width >= 680 ? 46 : 60, (width - names) / m);
      const labelled = cell >= 8.2;
      if (!labelled) {
        names = 20;
        cell = (width - names) / m;
      }
      const font = clamp(cell * 1.02, 8, 11.5);
      const side = cell * m;
      const head = labelled ? Math.min(longest, 170) + 20 : 24;
      const root = canvas(chart, head + side + 4);
      note.textContent = layer.note;
      note.hidden = !layer.note;
      const named = panel.x !== panel.y;
      if (named) svg("text", { class: "axis", x: names + side / 2, y: 12, "text-anchor": "middle" }, root, `${panel.x} →`);
      if (!labelled) {
        const text = named ? `← ${panel.y}` : panel.y;
        svg("text", { class: "axis", "text-anchor": "middle", transform: `translate(12 ${trim(head + side / 2)}) rotate(-90)` }, root, text);
        if (!named) svg("text", { class: "axis", x: names + side / 2, y: 16, "text-anchor": "middle" }, root, panel.x);
      } else if (named) {
        const text = `${panel.y} ↓`;
        const free = names + side / 2 - measure(`${panel.x} →`, 12) / 2 - 16;
        svg("text", { class: "axis", x: 0, y: measure(text, 12) <= free ? 12 : head - 6 }, root, fit(text, measure(text, 12) <= free ? free : names - 6, 12));
      }
      const parts = new Map();
      codes.forEach((row, i) => {
        codes.forEach((column, j) => {
          const value = matrix[row][column];
          const look = known(value) ? shade(value, limit) : "heat-none";
          const square = `M${trim(names + j * cell)} ${trim(head + i * cell)}h${trim(cell)}v${trim(cell)}h${trim(-cell)}z`;
          parts.set(look, (parts.get(look) || "") + square);
        });
      });
      for (const [look, text] of parts) svg("path", { class: look, d: text, "shape-rendering": "crispEdges" }, root);
      if (labelled) {
        codes.forEach((code, place) => {
          const at = place * cell + cell / 2;
          const style = { class: "name", "font-size": font };
          svg("text", { ...style, x: names - 6, y: head + at + font * 0.36, "text-anchor": "end" }, root, fit(groups[code].name, names - 8, font)).style.fontSize = `${font}px`;
          svg("text", { ...style, transform: `translate(${trim(names + at + font * 0.36)} ${trim(head - 6)}) rotate(-90)` }, root, fit(groups[code].name, head - 28, font)).style.fontSize = `${font}px`;
        });
      }
      const digits = clamp(1 - Math.floor(Math.log10(limit)), 1, 6);
      const written = (value) => value.toFixed(digits).replace("-", "−").replace(/^−(0\.0+)$/, "$1");
      if (cell >= measure(`−${limit.toFixed(digits)}`, 11) + 3) {
        codes.forEach((row, i) => codes.forEach((column, j) => {
          const value = matrix[row][column];
          if (!known(value)) return;
          const share = Math.abs(value) / limit;
          const deep = `${share > 0.79 ? "deep" : ""} ${share > 0.64 ? "half" : ""}`;
          svg("text", { class: `value ${deep}`, x: names + (j + 0.5) * cell, y: head + (i + 0.5) * cell + 4, "text-anchor": "middle" }, root, written(value));
        }));
      }
      const cross = svg("path", { class: "cross", visibility: "hidden" }, root);
      sheet(
        root, names, head, side, side,
        (event, px, py) => {
          const i = clamp(Math.floor((py - head) / cell), 0, m - 1);
          const j = clamp(Math.floor((px - names) / cell), 0, m - 1);
          const [row, column] = [codes[i], codes[j]];
          cross.setAttribute("d", `M${trim(names + j * cell)} ${trim(head + i * cell)}h${trim(cell)}v${trim(cell)}h${trim(-cell)}z`);
          cross.setAttribute("visibility", "visible");
          const short = (code) => (groups[code].name.length > 60 ? `${groups[code].name.slice(0, 59)}…` : groups[code].name);
          showTip(event, `${short(row)} → ${short(column)}`, [[panel.options.unit, format(matrix[row][column])]]);
        },
        () => cross.setAttribute("visibility", "hidden"),
        null,
        codes.map((column, j) => ({ x: names + (j + 0.5) * cell, marks: codes.map((row, i) => ({ y: head + (i + 0.5) * cell, pick: i })) })),
      );
      key.textContent = "";
      html("span", {}, key, format(-limit));
      const strip = svg("svg", { viewBox: "0 0 41 3", preserveAspectRatio: "none" }, key);
      for (let step = -SHADES; step <= SHADES; step += 1) {
        svg("rect", { class: step < 0 ? `hn${-step}` : `hp${step}`, x: step + SHADES, y: 0, width: 1.1, height: 3 }, strip);
      }
      html("span", {}, key, `${format(limit)}  ${panel.options.unit}`);
      const beyond = matrix.some((row) => row.some((value) => known(value) && Math.abs(value) > limit * 1.001));
      if (beyond) html("span", {}, key, "· values beyond have the end's colour");
    };
  }

  // ---- pairs in two dimensions ------------------------------------------------------------------------------------
  function pointsChart(chart, panel) {
    const { groups, colours } = chart.run;
    const { x: across, y: up, group: owner, positive } = panel.arrays;
    const hidden = new Set();
    chart.draw = () => {
      const width = chart.width;
      const tall = chart.printing ? 360 : width >= 560 ? 470 : 340;
      const [a0, a1] = extent(across);
      const [b0, b1] = extent(up);
      const marks = ticks(b0, b1, 6);
      const left = Math.max(...marks.map((mark) => measure(mark.text, 11.5))) + 12;
      const [top, bottom, right] = [26, 44, width - 10];
      const x = scale(a0, a1, left + 8, right - 8);
      const y = scale(b0, b1, tall - bottom - 8, top + 8);
      const root = canvas(chart, tall);
      svg("text", { class: "axis", x: 0, y: 12 }, root, panel.y);
      for (const mark of marks) {
        svg("line", { class: "grid", x1: left, x2: right, y1: y(mark.value), y2: y(mark.value) }, root);
        svg("text", { x: left - 8, y: y(mark.value) + 4, "text-anchor": "end" }, root, mark.text);
      }
      for (const mark of ticks(a0, a1, clamp(Math.floor((right - left) / 80), 4, 8))) {
        svg("line", { class: "grid", x1: x(mark.value), x2: x(mark.value), y1: top, y2: tall - bottom }, root);
        svg("text", { x: x(mark.value), y: tall - bottom + 16, "text-anchor": "middle" }, root, mark.text);
      }
      svg("text", { class: "axis", x: (left + right) / 2, y: tall - 6, "text-anchor": "middle" }, root, panel.x);
      const r = across.length > 800 ? 2.4 : 3.2;
      const parts = new Map();
      across.forEach((value, place) => {
        if (hidden.has(owner[place])) return;
        const look = `${colourClass(chart.run, owner[place])}|${positive[place] === 0 ? "hollow" : ""}`;
        const size = positive[place] === 0 ? r - 0.4 : r;
        const spot = `M${trim(x(value) - size)} ${trim(y(up[place]))}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0`;
        parts.set(look, (parts.get(look) || "") + spot);
      });
      const looks = [...parts.keys()].sort((a, b) => Number(b.startsWith("rest")) - Number(a.startsWith("rest")));
      for (const look of looks) svg("path", { class: `cloud ${look.replace("|", " ")}`, d: parts.get(look) }, root);
      const ring = svg("circle", { class: "cross", r: 7, visibility: "hidden" }, root);
      sheet(
        root, left, top, right - left, tall - top - bottom,
        (event, px, py) => {
          let found = null;
          let best = 500;
          across.forEach((value, place) => {
            if (hidden.has(owner[place])) return;
            const distance = (x(value) - px) ** 2 + (y(up[place]) - py) ** 2;
            if (distance < best) [found, best] = [place, distance];
          });
          if (found === null) {
            ring.setAttribute("visibility", "hidden");
            return hideTip();
          }
          ring.setAttribute("cx", trim(x(across[found])));
          ring.setAttribute("cy", trim(y(up[found])));
          ring.setAttribute("visibility", "visible");
          const rows = [];
          if (panel.labels[found]) rows.push(["pair", panel.labels[found].slice(0, 60)]);
          if (known(positive[found])) rows.push(["class", positive[found] ? "filled" : "hollow"]);
          showTip(event, groups[owner[found]].name, rows);
        },
        () => ring.setAttribute("visibility", "hidden"),
      );
    };
    groupLegend(chart, hidden, true);
  }

  // ---- a histogram ------------------------------------------------------------------------------------------------
  function histChart(chart, panel) {
    const { edges, share } = panel.arrays;
    chart.draw = () => {
      const width = chart.width;
      const tall = width >= 560 ? 260 : 230;
      const [, most] = extent(share);
      const marks = ticks(0, most * 100, 4);
      const left = Math.max(...marks.map((mark) => measure(`${mark.text} %`, 11.5))) + 12;
      const [top, bottom, right] = [26, 46, width - 12];
      const x = scale(edges[0], edges[edges.length - 1], left, right);
      const y = scale(0, most * 1.04, tall - bottom, top);
      const root = canvas(chart, tall);
      svg("text", { class: "axis", x: 0, y: 12 }, root, panel.y);
      for (const mark of marks) {
        svg("line", { class: "grid", x1: left, x2: right, y1: y(mark.value / 100), y2: y(mark.value / 100) }, root);
        svg("text", { x: left - 8, y: y(mark.value / 100) + 4, "text-anchor": "end" }, root, `${mark.text} %`);
      }
      share.forEach((value, place) => {
        const [from, to] = [x(edges[place]), x(edges[place + 1])];
        const below = (edges[place] + edges[place + 1]) / 2 < 0;
        svg("rect", { class: `hist ${below ? "below" : ""}`, x: from + 0.75, width: Math.max(0.5, to - from - 1.5), y: y(value), height: Math.max(0, y(0) - y(value)) }, root);
      });
      svg("line", { class: "base", x1: left, x2: right, y1: y(0), y2: y(0) }, root);
      svg("line", { class: "base", x1: x(0), x2: x(0), y1: top, y2: tall - bottom }, root);
      for (const mark of ticks(edges[0], edges[edges.length - 1], clamp(Math.floor((right - left) / 80), 4, 8))) {
        svg("text", { x: x(mark.value), y: tall - bottom + 16, "text-anchor": "middle" }, root, mark.text);
      }
      svg("text", { class: "axis", x: (left + right) / 2, y: tall - 6, "text-anchor": "middle" }, root, fit(panel.x, right - left + 20, 12));
      sheet(
        root, left, top, right - left, tall - top - bottom,
        (event, px) => {
          const place = clamp(Math.floor(((px - left) / (right - left)) * share.length), 0, share.length - 1);
          showTip(event, `${format(edges[place])} to ${format(edges[place + 1])}`, [["pairs", `${format(share[place] * 100)} %`]]);
        },
        () => {},
        null,
        share.map((value, place) => ({ x: x((edges[place] + edges[place + 1]) / 2), marks: [{ y: y(value), pick: 0 }] })),
      );
    };
  }

  // ---- lists that fold, the table of groups, long texts --------------------------------------------------------------
  // Which texts are cut depends on the width and on what is shown; only those can be opened.
  function checkLong() {
    for (const text of document.querySelectorAll(".clamp:not(.open)")) {
      if (!text.clientHeight) continue;
      const long = text.scrollHeight > text.clientHeight + 2;
      if (long === text.classList.contains("long")) continue;
      text.classList.toggle("long", long);
      for (const [name, value] of [["title", "Click to see the whole text"], ["role", "button"], ["tabindex", "0"], ["aria-expanded", "false"]]) {
        long ? text.setAttribute(name, value) : text.removeAttribute(name);
      }
    }
  }
  // Tables that are wider than the page scroll; only those are stopped at by a keyboard, whose arrows move them then.
  function checkWide() {
    for (const box of document.querySelectorAll(".wide")) {
      if (box.scrollWidth > box.clientWidth + 1) box.setAttribute("tabindex", "0");
      else box.removeAttribute("tabindex");
    }
  }
  function fold(list) {
    const most = Number(list.dataset.fold);
    const host = list.tagName === "TBODY" ? list.closest("table") : list;
    const button = html("button", { type: "button", class: "more" });
    host.after(button);
    let open = false;
    const refresh = () => {
      const rows = [...list.children].filter((row) => !row.classList.contains("away"));
      rows.forEach((row, place) => row.classList.toggle("beyond", !open && place >= most && rows.length > most + 2));
      button.hidden = rows.length <= most + 2;
      button.textContent = open ? `Show the first ${most} only` : `Show all ${rows.length}`;
      button.setAttribute("aria-expanded", String(open));
      checkLong();
    };
    button.addEventListener("click", () => {
      open = !open;
      refresh();
    });
    refresh();
    return refresh;
  }
  function groupTable(section) {
    const body = section.querySelector("tbody");
    const refresh = fold(body);
    const wanted = new Set();
    const find = section.querySelector(".find input");
    const apply = () => {
      const text = find ? find.value.trim().toLowerCase() : "";
      for (const row of body.children) {
        row.classList.toggle("away", (wanted.size > 0 && !wanted.has(row.dataset.verdict)) || !row.dataset.name.includes(text));
      }
      refresh();
      const none = section.querySelector(".none");
      none.hidden = [...body.children].some((row) => !row.classList.contains("away"));
      body.parentElement.hidden = !none.hidden;
    };
    for (const button of section.querySelectorAll(".filter")) {
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        on ? wanted.add(button.dataset.verdict) : wanted.delete(button.dataset.verdict);
        apply();
      });
    }
    if (find) find.addEventListener("input", apply);
    const sort = section.querySelector(".sort select");
    const arrange = () => {
      const key = sort.value.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
      const way = sort.selectedOptions[0].dataset.way === "falling" ? -1 : 1;
      const value = (row) => (key === "name" ? row.dataset.name : row.dataset[key] === undefined ? null : Number(row.dataset[key]));
      const rows = [...body.children].sort((a, b) => {
        const [first, second] = [value(a), value(b)];
        if (first === null || second === null) return (first === null) - (second === null);
        return (first < second ? -1 : first > second ? 1 : Number(a.dataset.code) - Number(b.dataset.code)) * way;
      });
      body.append(...rows);
      refresh();
    };
    if (sort) sort.addEventListener("change", arrange);
  }

  // ---- everything ---------------------------------------------------------------------------------------------------
  const KINDS = { lines: linesChart, dots: dotsChart, scatter: scatterChart, heat: heatChart, points: pointsChart, hist: histChart };
  const charts = [];
  page.dataset.charts = String(document.querySelectorAll(".chart").length);
  const redraw = (chart) => {
    try {
      chart.draw();
      return true;
    } catch (error) {
      console.error(chart.label, error);
      chart.drawing.textContent = "";
      html("p", { class: "broken" }, chart.drawing, "This chart could not be drawn. Its numbers are in summary.json and trajectory.parquet.");
      failed();
      return false;
    }
  };
  for (const section of document.querySelectorAll(".run")) {
    const run = JSON.parse(section.querySelector("script.data").textContent);
    const panels = new Map(run.panels.map((panel) => [panel.id, panel]));
    for (const figure of section.querySelectorAll(".chart")) {
      const panel = panels.get(figure.dataset.panel);
      const [drawing, controls, legend] = [".drawing", ".controls", ".legend"].map((name) => figure.querySelector(name));
      const chart = { figure, drawing, controls, legend, run, label: panel.title, width: 0, printing: false, draw: () => {} };
      chart.width = Math.max(240, drawing.clientWidth);
      try {
        KINDS[panel.kind](chart, panel);
      } catch (error) {
        console.error(panel.id, error);
        failed();
        continue;
      }
      if (redraw(chart)) drawn += 1;
      charts.push(chart);
    }
    const table = section.querySelector(".groups");
    if (table) groupTable(table);
    for (const list of section.querySelectorAll("ol[data-fold], ul[data-fold], .cells tbody[data-fold]")) fold(list);
  }
  for (const text of document.querySelectorAll(".clamp")) {
    const turn = () => {
      if (text.classList.contains("long")) text.setAttribute("aria-expanded", String(text.classList.toggle("open")));
    };
    text.addEventListener("click", () => String(getSelection()) === "" && turn());
    text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      turn();
    });
  }
  checkLong();
  checkWide();
  if (typeof ResizeObserver !== "undefined") {
    let waiting = 0;
    const watcher = new ResizeObserver(() => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => {
        for (const chart of charts) {
          const width = Math.max(240, chart.drawing.clientWidth);
          if (chart.printing || Math.abs(width - chart.width) < 1) continue;
          chart.width = width;
          redraw(chart);
        }
        checkLong();
        checkWide();
      });
    });
    watcher.observe(document.getElementById("main"));
  }
  // A link to what is folded opens it; print opens all appendices, and closes them again.
  const opened = () => {
    let node = location.hash.length > 1 ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    if (!node) return;
    const target = node;
    for (; node; node = node.parentElement) {
      if (node.tagName === "DETAILS") node.open = true;
    }
    if (target.closest(".appendix")) target.scrollIntoView({ behavior: "instant" });
  };
  addEventListener("hashchange", opened);
  opened();
  const closed = [];
  const unfold = (printing) => {
    if (printing) closed.push(...document.querySelectorAll(".appendix:not([open])"));
    for (const appendix of closed) appendix.open = printing;
    if (!printing) closed.length = 0;
  };
  const forPrint = (printing) => {
    unfold(printing);
    for (const chart of charts) {
      chart.printing = printing;
      chart.width = printing ? 690 : Math.max(240, chart.drawing.clientWidth);
      redraw(chart);
    }
  };
  addEventListener("beforeprint", () => forPrint(true));
  addEventListener("afterprint", () => forPrint(false));
  tell();
})();
