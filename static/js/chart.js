// Draws the figures that Python made, in the page's own colours, and extends them with what ticks bring.
// Plotly is fetched when the first chart comes into sight.
import { format } from "./format.js";

const charts = new Map(); // plot element → chart
const [SECOND, MINUTE, DAY] = [1000, 60000, 86400000];
const TICKS = [
  { dtickrange: [null, SECOND], value: "%H:%M:%S.%L" },
  { dtickrange: [SECOND, MINUTE], value: "%H:%M:%S" },
  { dtickrange: [MINUTE, DAY], value: "%H:%M" },
  { dtickrange: [DAY, null], value: "%-d %b" },
];
const probe = document.createElement("span");

// A custom property as a colour that Plotly can read: light-dark() resolved for the theme in force.
function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.hidden = true;
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

let fetched = null;
function plotly(url) {
  fetched ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = url;
    script.addEventListener("load", () => resolve(window.Plotly));
    script.addEventListener("error", () => reject(new Error("plotly.js could not be loaded")));
    document.head.append(script);
  });
  return fetched;
}

const seen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const chart = charts.get(target);
    chart.visible = isIntersecting;
    if (isIntersecting) draw(chart);
  }
}, { rootMargin: "200px" });

export function begin(card) {
  const plot = card.querySelector("[data-plot]");
  const source = card.querySelector("script[type='application/json']");
  if (!plot || !source || charts.has(plot)) return;
  for (const gone of charts.keys()) if (!gone.isConnected) charts.delete(gone);
  const { data, layout } = JSON.parse(source.textContent);
  if (layout?.xaxis?.range) layout.xaxis.range = layout.xaxis.range.map(here);
  const chart = { card, plot, data, layout: layout ?? {}, id: card.dataset.chart, zoomed: false, visible: false, drawn: false };
  charts.set(plot, chart);
  plot.querySelector("noscript")?.remove();
  legend(chart);
  card.querySelector("details")?.addEventListener("toggle", () => table(chart));
  card.querySelector("[data-csv]")?.addEventListener("click", () => csv(chart));
  seen.observe(plot);
}

/* ── drawing ───────────────────────────────────────────────────────────────────────────────────── */
function dressed({ data, card }) {
  return data.map((trace, place) => {
    const series = trace.meta?.series ?? (place % 8) + 1;
    const shade = colour(trace.meta?.tone ?? `series-${series}`);
    const named = { ...trace, text: texts(trace, card), hovertemplate: `%{text}<extra>${trace.name ?? ""}</extra>` };
    if (trace.type === "bar") return { ...named, textposition: "none", marker: { ...trace.marker, color: shade } };
    if (trace.stackgroup) return { ...named, mode: "lines", line: { width: 0, color: shade }, fillcolor: faded(shade, 0.7) }; // an edge would draw even nothing
    const line = { width: 1.75, ...trace.line, color: shade, ...(series > 4 ? { dash: "dash" } : {}) };
    return { connectgaps: false, ...named, mode: "lines+markers", line, marker: { color: shade, size: dots(trace.y) }, fillcolor: trace.fill ? faded(shade, 0.18) : undefined };
  });
}

const faded = (shade, share) => shade.replace("rgb(", "rgba(").replace(")", `, ${share})`);

// A lone number between two gaps has no line to be seen by: it gets a dot.
function dots(values) {
  const known = (place) => values[place] !== null && values[place] !== undefined;
  return values.map((_, place) => (known(place) && !known(place - 1) && !known(place + 1) ? 5 : 0));
}

function texts(trace, card) {
  return trace.y.map((value) => format(value, card.dataset.format) + suffix(card));
}

// ms, % and the like already end their own number; a bare number gets the card's unit.
function suffix(card) {
  return card.dataset.format === "number" && card.dataset.unit ? ` ${card.dataset.unit.replace(/^\//, "/ ")}` : "";
}

function arranged(chart) {
  const [text, grid] = [colour("text-3"), colour("border")];
  const font = { family: getComputedStyle(document.body).fontFamily, size: 11, color: text };
  const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, tickfont: font, automargin: true };
  const { xaxis, yaxis, ...rest } = chart.layout;
  return {
    autosize: true, margin: { l: 44, r: 8, t: 8, b: 24 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font, showlegend: false, hovermode: "x unified", dragmode: "zoom", uirevision: "kept", bargap: 0.15, barcornerradius: 0,
    hoverlabel: { bgcolor: colour("surface-2"), bordercolor: colour("border-strong"), font: { ...font, color: colour("text-1"), size: 12 } },
    ...rest,
    xaxis: { type: "date", showgrid: false, showspikes: true, spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: text, spikesnap: "cursor", fixedrange: false, nticks: 6, tickformatstops: TICKS, hoverformat: "%-d %b %Y, %H:%M:%S", ...axis, ...xaxis },
    yaxis: { rangemode: "tozero", nticks: 5, fixedrange: true, ...axis, ...yaxis },
  };
}

async function draw(chart) {
  const Plotly = await plotly(chart.card.dataset.plotly);
  if (!chart.plot.isConnected) return;
  const local = dressed(chart).map((trace) => ({ ...trace, x: trace.x.map(here) }));
  await Plotly.react(chart.plot, local, arranged(chart), { displayModeBar: false, responsive: true, doubleClick: "reset" });
  if (chart.drawn) return;
  chart.drawn = true;
  chart.plot.on("plotly_relayout", (change) => {
    if ("xaxis.range[0]" in change) chart.zoomed = true;
    if (change["xaxis.autorange"]) chart.zoomed = false;
  });
  chart.plot.on("plotly_hover", ({ xvals }) => together(chart, xvals?.[0]));
  chart.plot.on("plotly_unhover", () => together(chart, null));
}

// Plotly writes dates as they stand, without zones: moments become the viewer's wall clock.
function here(moment) {
  const when = new Date(moment);
  return Number.isNaN(when.getTime()) ? moment : new Date(when - when.getTimezoneOffset() * 60000).toISOString().slice(0, 23);
}

/* The cursor of one chart is the cursor of all. */
let leading = null;
function together(from, x) {
  if (leading && leading !== from) return;
  leading = from;
  const at = typeof x === "string" ? Date.parse(`${x.replace(" ", "T")}Z`) : x; // Plotly counts dates in ms
  for (const chart of charts.values()) {
    if (chart === from || !chart.drawn || !chart.visible || !chart.plot.isConnected) continue;
    if (at === null || at === undefined) window.Plotly.Fx.unhover(chart.plot);
    else window.Plotly.Fx.hover(chart.plot, { xval: at, yval: 0 });
  }
  leading = null;
}

/* ── live points ───────────────────────────────────────────────────────────────────────────────── */
document.addEventListener("tick", ({ detail }) => {
  const points = detail.data?.charts;
  if (!points) return;
  for (const chart of charts.values()) {
    const point = points[chart.id];
    if (point && chart.plot.isConnected) extend(chart, point);
  }
});

// {x, y: one number or null a trace}: a new moment goes on at the right, the running one is put right.
function extend(chart, { x, y }) {
  const since = new Date(x) - Number(chart.card.dataset.window) * 1000;
  chart.data.forEach((trace, place) => {
    const value = y[place] ?? null;
    const end = trace.x.length - 1;
    if (end >= 0 && new Date(trace.x[end]) >= new Date(x)) trace.y[end] = value;
    else {
      trace.x.push(x);
      trace.y.push(value);
    }
    // One point before the window stays: a line that seldom changes begins there.
    while (trace.x.length > 2 && new Date(trace.x[1]) < since) {
      trace.x.shift();
      trace.y.shift();
    }
  });
  blank(chart);
  if (!chart.zoomed && chart.layout.xaxis?.range) chart.layout.xaxis.range = [here(since), here(x)];
  if (chart.drawn && chart.visible && !document.hidden) draw(chart);
  if (chart.card.querySelector("details[open]")) table(chart);
}

// Nothing to draw is said in words; with the first number the plot comes into sight, and is drawn.
function blank({ card, plot, data }) {
  const words = card.querySelector("[data-empty]");
  if (!words) return;
  const nothing = (value) => value === null || (value === 0 && words.dataset.empty === "0");
  plot.hidden = data.every((trace) => trace.y.every(nothing));
  words.hidden = !plot.hidden;
}

document.addEventListener("theme", () => {
  for (const chart of charts.values()) if (chart.drawn && chart.plot.isConnected) draw(chart);
});

/* ── the same numbers in other ways ────────────────────────────────────────────────────────────── */
function legend(chart) {
  const list = chart.card.querySelector("[data-legend]");
  if (!list || chart.data.length < 2) return;
  list.replaceChildren(...chart.data.map((trace, place) => {
    const [item, button, swatch] = [document.createElement("li"), document.createElement("button"), document.createElement("span")];
    swatch.className = `swatch ${trace.meta?.tone ? `is-${trace.meta.tone}` : `s${trace.meta?.series ?? (place % 8) + 1}`}`;
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.append(swatch, trace.name ?? "");
    button.addEventListener("click", () => {
      const shown = trace.visible === false;
      trace.visible = shown;
      button.setAttribute("aria-pressed", String(shown));
      if (chart.drawn) draw(chart);
    });
    item.append(button);
    return item;
  }));
}

function rows({ data }) {
  const moments = [...new Set(data.flatMap((trace) => trace.x))].sort();
  const values = data.map((trace) => new Map(trace.x.map((x, place) => [x, trace.y[place]])));
  return moments.map((x) => [x, ...values.map((each) => each.get(x) ?? null)]);
}

function table(chart) {
  const box = chart.card.querySelector("[data-table]");
  if (!chart.card.querySelector("details").open) return;
  const [made, head, body] = ["table", "thead", "tbody"].map((name) => document.createElement(name));
  head.append(row("th", ["Time", ...chart.data.map((trace) => trace.name ?? "Value")]));
  for (const [x, ...values] of rows(chart).reverse()) {
    const when = new Date(x);
    const moment = Number.isNaN(when.getTime()) ? x : when.toLocaleString("en-GB", { timeZoneName: "short" });
    body.append(row("td", [moment, ...values.map((value) => format(value, chart.card.dataset.format))]));
  }
  made.append(head, body);
  box.replaceChildren(made);
}

function row(tag, texts) {
  const line = document.createElement("tr");
  line.append(...texts.map((text, place) => {
    const cell = document.createElement(tag);
    cell.textContent = text;
    if (place) cell.className = "num";
    if (tag === "th") cell.scope = "col";
    return cell;
  }));
  return line;
}

function csv(chart) {
  const quote = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value ?? "");
  const head = ["time", ...chart.data.map((trace) => trace.name ?? "value")];
  const text = [head, ...rows(chart)].map((each) => each.map(quote).join(",")).join("\r\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${text}\r\n`], { type: "text/csv" }));
  link.download = `${chart.id}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
