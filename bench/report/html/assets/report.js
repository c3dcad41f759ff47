// What the two libraries are told, and the keys that plotly does not know. Plots are drawn when they come into view.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const followScheme = () => document.documentElement.classList.toggle("dark", dark.matches); // as DataTables wants it
dark.addEventListener("change", followScheme);
followScheme();

const draw = async (plot) => {
  const figure = JSON.parse(plot.querySelector("script").textContent);
  plot.replaceChildren();
  const buttons = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
  const options = { responsive: true, displaylogo: false, modeBarButtons: [buttons] };
  await Plotly.newPlot(plot, figure.data, figure.layout, options);
  plot.dataset.drawn = "";
};

const seen = new IntersectionObserver((entries) => {
  for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
    seen.unobserve(target);
    draw(target);
  }
}, { rootMargin: "300px" });

// The values of an axis, in order, with all points that stand there: what one step of an arrow shows.
const stops = (plot) => {
  const found = new Map();
  plot.data.forEach((trace, curveNumber) => {
    if (trace.visible === "legendonly" || !trace.text) return;
    trace.x.forEach((x, pointNumber) => {
      found.set(x, [...(found.get(x) ?? []), { curveNumber, pointNumber }]);
    });
  });
  const places = plot.layout.xaxis.categoryarray ?? [...found.keys()].sort((a, b) => a - b);
  return places.filter((x) => found.has(x)).map((x) => [x, found.get(x)]);
};

const step = (plot, by) => {
  const all = stops(plot);
  if (!all.length) return;
  const last = Number(plot.dataset.at ?? (by > 0 ? -1 : all.length));
  const at = Math.min(Math.max(last + by, 0), all.length - 1);
  const [x, points] = all[at];
  plot.dataset.at = at;
  // By the axis and not by points: these would get a label each, one over the other.
  Plotly.Fx.hover(plot, { xval: plot.layout.xaxis.categoryarray?.indexOf(x) ?? x }, "xy");
  const told = points.map(({ curveNumber, pointNumber }) => {
    const trace = plot.data[curveNumber];
    return `${trace.name}: ${trace.text[pointNumber]}`;
  });
  document.getElementById("spoken").textContent = `${plot.layout.xaxis.title.text} ${x}: ${told.join("; ")}`;
};

const leave = (plot) => {
  delete plot.dataset.at;
  Plotly.Fx.unhover(plot);
};

const zoom = (plot, factor) => {
  const ranges = {};
  for (const name of ["xaxis", "yaxis"]) {
    const [from, to] = plot.layout[name].range.map(Number);
    const [middle, half] = [(from + to) / 2, ((to - from) / 2) * factor];
    ranges[`${name}.range`] = [middle - half, middle + half];
  }
  Plotly.relayout(plot, ranges);
};

const KEYS = {
  ArrowLeft: (plot) => step(plot, -1),
  ArrowRight: (plot) => step(plot, 1),
  "+": (plot) => zoom(plot, 1 / 1.5),
  "=": (plot) => zoom(plot, 1 / 1.5),
  "-": (plot) => zoom(plot, 1.5),
  0: (plot) => Plotly.relayout(plot, plot.whole),
  Escape: leave,
};

for (const plot of document.querySelectorAll(".plot")) {
  seen.observe(plot);
  plot.addEventListener("keydown", (event) => {
    const does = KEYS[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey || !("drawn" in plot.dataset)) return;
    event.preventDefault();
    plot.whole ??= Object.fromEntries(["xaxis", "yaxis"].map((name) => [`${name}.range`, [...plot.layout[name].range]]));
    does(plot);
  });
  plot.addEventListener("blur", () => "drawn" in plot.dataset && leave(plot));
}

// Browsers that give a page from the disk no clipboard still copy what is selected.
const copy = async (code) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(code.textContent).catch(() => copySelected(code));
  return copySelected(code);
};

const copySelected = (code) => {
  getSelection().selectAllChildren(code);
  document.execCommand("copy");
};

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    await copy(button.parentElement.querySelector("code"));
    button.textContent = "Copied";
    document.getElementById("spoken").textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

// A link to what is folded opens it.
const unfold = () => {
  const folded = location.hash && document.getElementById(location.hash.slice(1));
  if (folded instanceof HTMLDetailsElement) folded.open = true;
};
addEventListener("hashchange", unfold);
unfold();

// Thousands with commas, and as many digits after the point as the column has: all of them where it says null.
const inWords = (digits) => {
  const options = digits === null ? { maximumFractionDigits: 20 } : { minimumFractionDigits: digits, maximumFractionDigits: digits };
  const format = new Intl.NumberFormat("en", options);
  return (value, kind) => (kind === "display" && typeof value === "number" ? format.format(value) : value);
};

const showCases = async () => {
  const { columns, rows } = JSON.parse(document.getElementById("case-rows").textContent);
  const source = new Blob([document.getElementById("datatables").textContent], { type: "text/javascript" });
  const { default: DataTable } = await import(URL.createObjectURL(source));
  new DataTable("#case-table", {
    data: rows,
    deferRender: true,
    order: [],
    pageLength: 25,
    scrollX: true,
    columns: columns.map((column) => ({
      defaultContent: "–",
      className: column.isWord ? "" : "number dt-right",
      type: column.isWord ? "string" : "num",
      render: column.isWord ? DataTable.render.text() : inWords(column.digits),
      columnControl: [
        { extend: "dropdown", text: `filter by ${column.title}`, content: [column.isWord ? "searchList" : "search"] },
      ],
    })),
  });
};
if (document.getElementById("case-rows")) showCases();
