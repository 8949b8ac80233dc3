/* Draws the plots, and makes the arms of the page's one legend hide and show in all of them. */
(function () {
  "use strict";
  const root = document.documentElement;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const template = read("plot-template");
  const plots = Array.from(document.querySelectorAll(".plot"));
  const drawn = new Set();
  const hidden = new Set();
  const touch = window.matchMedia("(pointer: coarse)").matches;

  /* The page has one legend for all plots, but a picture that leaves the page needs its own. */
  const download = {
    name: "download",
    title: "Download picture with title and legend",
    icon: Plotly.Icons.camera,
    click(div) {
      const title = div.dataset.title || "";
      const layout = Object.assign({}, div.layout, {
        showlegend: true,
        title: { text: title.replace(/&/g, "&amp;").replace(/</g, "&lt;"), font: { size: 17 } },
        margin: Object.assign({}, div.layout.margin, { t: 96, l: 70, b: 60, r: 24 }),
        width: undefined, height: undefined, autosize: false,
      });
      Plotly.downloadImage({ data: div.data, layout: layout, config: {} }, {
        format: "png", width: 900, height: 560, scale: 2, filename: title.replace(/[^\w-]+/g, "_") || "plot",
      });
    },
  };
  const config = {
    responsive: true, displaylogo: false,
    showSendToCloud: false, plotlyServerURL: "",  /* plotly 4 would offer to upload the figure */
    modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
    modeBarButtonsToAdd: [download],
  };

  function draw(div) {
    if (drawn.has(div.id)) return Promise.resolve();
    drawn.add(div.id);
    const spec = read(div.id + "-spec");
    const layout = Object.assign({}, spec.layout, { template: read(div.id + "-template") || template, autosize: true });
    if (touch) layout.dragmode = false;  /* a finger on a plot scrolls the page */
    for (const trace of spec.data) if (hidden.has(trace.legendgroup)) trace.visible = false;
    return Plotly.newPlot(div, spec.data, layout, config).catch((error) => window.maypoleError(div.dataset.title + ": " + error));
  }

  function toggle(chip) {
    const arm = chip.dataset.arm;
    const show = hidden.has(arm);
    if (show) hidden.delete(arm); else hidden.add(arm);
    chip.setAttribute("aria-pressed", String(show));
    for (const div of plots) {
      if (!drawn.has(div.id) || !div.data) continue;
      const traces = div.data.map((trace, i) => (trace.legendgroup === arm ? i : -1)).filter((i) => i >= 0);
      if (traces.length) Plotly.restyle(div, { visible: show }, traces);
    }
  }

  /* Legend symbols are drawn like the lines they stand for. */
  const shapes = {
    circle: "M8 7a4 4 0 1 0 8 0a4 4 0 1 0-8 0", square: "M8.5 3.5h7v7h-7z", diamond: "M12 2l5 5-5 5-5-5z",
    "triangle-up": "M12 2l5 9h-10z", x: "M8 5l2-2 2 2 2-2 2 2-2 2 2 2-2 2-2-2-2 2-2-2 2-2z",
    cross: "M10.5 3h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z", star: "M12 1.5l1.6 3.6 3.9.4-2.9 2.6.8 3.9-3.4-2-3.4 2 .8-3.9-2.9-2.6 3.9-.4z",
  };
  const dashes = { solid: "", dash: "5 3", dot: "2 2", dashdot: "5 2 2 2" };
  for (const line of document.querySelectorAll(".chip .line")) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", "24"); svg.setAttribute("height", "14");
    const stroke = document.createElementNS(svg.namespaceURI, "path");
    stroke.setAttribute("d", "M0 7h24"); stroke.setAttribute("stroke", "currentColor"); stroke.setAttribute("stroke-width", "2.4");
    stroke.setAttribute("stroke-dasharray", dashes[line.dataset.dash] || "");
    const mark = document.createElementNS(svg.namespaceURI, "path");
    mark.setAttribute("d", shapes[line.dataset.symbol] || shapes.circle); mark.setAttribute("fill", "currentColor");
    svg.append(stroke, mark);
    line.append(svg);
  }

  for (const chip of document.querySelectorAll(".chip")) chip.addEventListener("click", () => toggle(chip));
  for (const fold of document.querySelectorAll("details.fold")) {
    fold.addEventListener("toggle", () => { if (fold.open) fold.querySelectorAll(".plot").forEach(draw); });
  }
  const first = plots.filter((div) => !div.closest("details.fold"));
  Promise.all(first.map(draw)).then(() => root.setAttribute("data-plots", String(first.length)));

  /* On paper the columns have another width than on the screen. */
  function fit(width) {
    const main = document.querySelector("main");
    main.style.width = width;
    for (const div of plots) if (div.data && div.offsetParent) Plotly.relayout(div, { width: width ? div.clientWidth : undefined, autosize: !width });
  }
  window.addEventListener("beforeprint", () => fit("700px"));
  window.addEventListener("afterprint", () => fit(""));
})();
