"use strict";
// Draws the charts with uPlot, tells what the mouse is over in a confusion matrix, and copies commands.
// The page is complete without it: charts are then SVG, and every number is in a table.
(() => {
  const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const format = (value, form, short) => {
    if (value == null) return "";
    if (form === "percent") return short ? `${+(100 * value).toPrecision(4)}%` : `${(100 * value).toFixed(2)}%`;
    if (form === "integer") return value.toLocaleString("en-US", {maximumFractionDigits: 2});
    return String(+value.toPrecision(4));
  };

  const options = (chart, width) => {
    const axis = (label, form, size) => ({
      label, size, stroke: color("muted"), font: "11px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif",
      labelSize: 20, grid: {stroke: color("rule"), width: 1}, ticks: {stroke: color("rule"), width: 1},
      values: (_, ticks) => ticks.map(value => format(value, form, true)),
    });
    const line = ({label, color: index, dashed, reference, dots}) => ({
      label, spanGaps: true, width: reference ? 1 : 1.8, stroke: color(reference ? "muted" : `c${index}`),
      dash: reference ? [2, 4] : dashed ? [7, 4] : [], points: {show: dots && !reference, size: 5},
      value: (_, value) => format(value, chart.y_format),
    });
    return {
      width, height: 250,
      scales: {x: {time: false}, y: chart.y_range ? {range: () => chart.y_range} : {}},
      axes: [axis(chart.x_label, chart.x_format, 34), axis(chart.y_label, chart.y_format, 56)],
      series: [{label: chart.x_label, last: chart.x_format === "integer", value: (_, value) => format(value, chart.x_format)}, ...chart.lines.map(line)],
      cursor: {y: false, focus: {prox: 24}},
      legend: {markers: {width: 3, dash: (plot, i) => plot.series[i].dash?.length ? "dashed" : "solid"}},
      hooks: {ready: [showLast], setCursor: [showLast]},
    };
  };

  // Without a mouse over it, the legend of a training's curves has their last values.
  const showLast = plot => {
    if (plot.cursor.idx == null && plot.series[0].last) plot.setLegend({idx: plot.data[0].length - 1}, false);
  };

  const plots = [];
  const draw = () => {
    for (const plot of plots.splice(0)) plot.destroy();
    for (const place of document.querySelectorAll("[data-chart]")) {
      const chart = JSON.parse(document.getElementById(place.dataset.chart).textContent);
      place.classList.add("drawn");
      const plot = new uPlot(options(chart, place.clientWidth), [chart.x, ...chart.lines.map(line => line.y)], place);
      plots.push(plot);
    }
  };
  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("resize", () => {
    for (const plot of plots) {
      const width = plot.root.parentElement.clientWidth;
      if (width && width !== plot.width) plot.setSize({width, height: plot.height});
    }
  });

  for (const table of document.querySelectorAll(".confusion")) {
    const told = document.getElementById(table.dataset.told);
    const names = [...table.tHead.rows[table.tHead.rows.length - 1].cells].slice(1).map(cell => cell.textContent.trim());
    const tell = event => {
      const cell = event.target.closest("td");
      if (!cell?.dataset.count) return; // the corner is no cell of the matrix
      const label = cell.parentElement.cells[0].textContent.trim(), prediction = names[cell.cellIndex - 1];
      const {count, total} = cell.dataset;
      const share = (100 * count / Math.max(total, 1)).toFixed(1);
      told.textContent = `${label} predicted as ${prediction}: ${(+count).toLocaleString("en-US")} of `
        + `${(+total).toLocaleString("en-US")} images (${share}%)`;
    };
    told.textContent = "Point at a cell.";
    table.addEventListener("mouseover", tell);
    table.addEventListener("click", tell);
  }

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  const unfolded = new Set();
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details[data-print]:not([open])")) {
      fold.open = true;
      unfolded.add(fold);
    }
  });
  addEventListener("afterprint", () => {
    for (const fold of unfolded) fold.open = false;
    unfolded.clear();
  });
})();
