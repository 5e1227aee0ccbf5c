"use strict";
// Draws the report from the data inside the file. Whatever comes from the data enters the page as text only.
(async () => {
  const $ = (id) => document.getElementById(id);
  const narrow = matchMedia("(max-width: 860px)");
  const ROW = 58;

  // --- Small things ---

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.map((child) => (child === null || child === undefined ? "" : child)));
    return node;
  }
  function draw(tag, attributes, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const known = (value) => value !== null && value !== undefined;
  const formats = [0, 1, 2].map((digits) => new Intl.NumberFormat("en", { maximumFractionDigits: digits }));
  const number = (value) => {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    return formats[size >= 100 ? 0 : size >= 10 ? 1 : 2].format(value);
  };
  const fixed = (value) => (known(value) ? value.toFixed(3) : "–");
  const percent = (value, signed) => {
    if (!known(value)) return "–";
    const shown = (100 * value).toFixed(Math.abs(value) >= 9.995 ? 0 : 1);
    return (signed && Number(shown) > 0 ? "+" : "") + shown + "%";
  };
  const words = (name) => String(name).replaceAll("_", " ");
  const titled = (name) => words(name).charAt(0).toUpperCase() + words(name).slice(1);
  const sum = (values) => values.reduce((total, value) => total + (value || 0), 0);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const alpha = (hex, share) => hex + Math.round(255 * share).toString(16).padStart(2, "0");
  const plural = (count, one) => `${formats[0].format(count)} ${one}${count === 1 || one === "series" ? "" : "s"}`;

  // --- The data ---

  async function inflate(text) {
    const packed = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  let bytes;
  try {
    bytes = await inflate($("data").textContent);
  } catch (error) {
    $("problem").hidden = false;
    $("problem").textContent =
      "This browser cannot unpack the report, or the file is damaged. It needs DecompressionStream: " +
      `Chrome 111, Firefox 113, Safari 16.4 or later. (${error})`;
    return;
  }
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const content = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const { about, dates, series } = content;
  const ids = series.series_id;
  const OFF = "This mart is switched off in the dbt project.";
  const alerts = about.alerts ?? { counts: [], rows: [] };
  const reorder = about.reorder ?? { counts: [], rows: [] };
  const index = new Map(ids.map((id, i) => [id, i]));
  const blocks = new Map();
  let offset = 4 + length;
  for (const block of content.blocks) {
    const size = ids.length * block.at.length;
    blocks.set(block.name, { ...block, low: offset, high: offset + size });
    offset += 2 * size;
  }
  const promotionsAt = content.promotions ? offset : null;

  /** A series' whole numbers on the dates of a block; null where there is none. */
  function whole(name, i) {
    const block = blocks.get(name);
    const base = block.base ? whole(block.base, i) : null;
    const start = i * block.at.length;
    let last = 0;
    return block.at.map((_, t) => {
      const code = bytes[block.low + start + t] | (bytes[block.high + start + t] << 8);
      if (!code) return null;
      const folded = code - 1;
      let value = folded & 1 ? -(folded + 1) / 2 : folded / 2;
      if (block.inTime) {
        value += last;
        last = value;
      }
      return value + (base ? base[t] || 0 : 0);
    });
  }
  /** A series' values on every date of the axis. */
  function curve(name, i) {
    const out = new Array(dates.length).fill(null);
    if (!blocks.has(name)) return out;
    const values = whole(name, i);
    blocks.get(name).at.forEach((place, t) => {
      // Products of a decimal step carry dust: 3 x 0.1 is not 0.3.
      if (values[t] !== null) out[place] = Number((values[t] * series.step[i]).toPrecision(12));
    });
    return out;
  }
  const promotion = (i, t) => (promotionsAt === null ? 0 : bytes[promotionsAt + i * dates.length + t]);

  const seconds = (date) => Date.parse(`${date}T00:00:00Z`) / 1000;
  const weekday = new Intl.DateTimeFormat("en", { weekday: "short", timeZone: "UTC" });
  const dated = (date) => (about.grain === "day" ? `${weekday.format(new Date(seconds(date) * 1000))} ${date}` : `${about.grain} of ${date}`);
  const [short, month] = [{ day: "numeric" }, {}].map((day) => new Intl.DateTimeFormat("en-GB", { ...day, month: "short", timeZone: "UTC" }));
  /** Name a tick of the axis of dates; the year is below the first one and each January's. */
  function ticked(stamp, by, isFirst) {
    const date = new Date(stamp * 1e3);
    const year = date.getUTCFullYear();
    if (by >= 360 * 86400) return String(year);
    const name = (by >= 27 * 86400 ? month : short).format(date);
    const opens = date.getUTCMonth() === 0 && date.getUTCDate() * 86400 <= by;
    return isFirst || opens ? `${name}\n${year}` : name;
  }
  const holidays = new Map(about.holidays.map((each) => [each.at, each.name]));
  const models = [...blocks.keys()].filter((name) => name.startsWith("model/")).map((name) => name.slice(6));
  const folds = [...blocks.keys()].filter((name) => /^fold\/.*\/mean$/.test(name)).map((name) => name.slice(0, -5));
  const horizon = plural(about.horizon, about.grain);
  const modelColour = (name) => `c${(models.indexOf(name) % 5) + 1}`;

  // --- Charts ---

  const charts = new Map();
  const HEIGHT = () => (narrow.matches ? 260 : 330);

  /** Draw a chart into a box; drawn again when the box or the colours change. */
  function chart(box, readout, options) {
    const before = charts.get(box);
    if (before) before.plot.destroy();
    const text = colour("quiet");
    const line = colour("line");
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: text, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
    const lines = options.lines.filter((each) => each.values.some(known));
    const place = new Map(lines.map((each, i) => [each.name, i + 1]));
    const bands = options.bands
      .filter((band) => place.has(band.upper) && place.has(band.lower))
      .map((band) => ({ series: [place.get(band.upper), place.get(band.lower)], fill: alpha(colour(band.colour), band.alpha) }));
    const plot = new uPlot(
      {
        width: Math.max(200, box.clientWidth),
        height: HEIGHT(),
        tzDate: (stamp) => uPlot.tzDate(new Date(stamp * 1e3), "Etc/UTC"),
        legend: { show: false },
        cursor: { drag: { x: false, y: false }, points: { size: 7 }, y: false },
        scales: { y: { range: (_, low, high) => [Math.min(0, low || 0), high > 0 ? high * 1.06 : 1] } },
        axes: [
          { ...axis, space: 70, values: (_, ticks, __, ___, by) => ticks.map((tick, k) => ticked(tick, by, k === 0)) },
          { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => new Intl.NumberFormat("en", { notation: Math.abs(tick) >= 1e4 ? "compact" : "standard" }).format(tick)) },
        ],
        series: [
          {},
          ...lines.map((each) => ({
            label: each.name,
            stroke: each.colour ? colour(each.colour) : "transparent",
            width: each.width ?? 1.6,
            dash: each.dash,
            points: { show: each.colour && each.values.filter(known).length === 1 },
          })),
        ],
        bands,
        hooks: {
          drawClear: [(u) => options.under && options.under(u)],
          setCursor: [(u) => options.tell(readout, u.cursor.idx)],
        },
      },
      [options.dates.map(seconds), ...lines.map((each) => each.values)],
      box,
    );
    charts.set(box, { plot, again: () => chart(box, readout, options) });
    options.tell(readout, null);
    box.onkeydown = (event) => {
      const last = options.dates.length - 1;
      const at = plot.cursor.idx ?? options.start - (event.key === "ArrowRight" ? 1 : -1);
      const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const on = Math.max(0, Math.min(last, to));
      plot.setCursor({ left: plot.valToPos(plot.data[0][on], "x"), top: 20 });
    };
    box.onblur = () => plot.setCursor({ left: -10, top: -10 });
  }
  const redraw = () => charts.forEach((each) => each.again());

  /** Fill a readout with names and values. */
  function tell(readout, head, pairs) {
    readout.replaceChildren(make("b", {}, head));
    for (const [name, value] of pairs) readout.append(" · ", name + (value === null ? "" : " "), value === null ? "" : make("b", {}, value));
  }
  function swatch(kind, name, dash) {
    const svg = draw("svg", { width: 22, height: 12, "aria-hidden": "true" });
    const paint = `var(--${name})`;
    const shape =
      kind === "line"
        ? draw("line", { x1: 0, x2: 22, y1: 6, y2: 6, "stroke-width": 2.4, "stroke-dasharray": dash || "none" })
        : kind === "band"
          ? draw("rect", { width: 22, height: 12, rx: 2, "fill-opacity": 0.3 })
          : kind === "tick"
            ? draw("path", { d: "M4 12V6M11 12V3M18 12V7", "stroke-width": 4 })
            : draw("line", { x1: 11, x2: 11, y1: 0, y2: 12, "stroke-width": 2, "stroke-dasharray": "2 2" });
    shape.style[kind === "band" ? "fill" : "stroke"] = paint;
    svg.append(shape);
    return svg;
  }

  // --- Portfolio ---

  function table(node, heads, rows) {
    node.replaceChildren(
      make("thead", {}, make("tr", {}, ...heads.map(([name, isText]) => make("th", { scope: "col", class: isText ? "text" : null }, name)))),
      make("tbody", {}, ...rows),
    );
  }
  const cell = (value, className) => make("td", { class: className }, value);
  function opener(id) {
    if (!index.has(id)) return make("span", { dir: "auto" }, id);
    return make("button", { class: "open", type: "button", dir: "auto", title: id, onclick: () => open(index.get(id)) }, id);
  }

  // Figures that only make sense within a measure; the leading one's are shown first.
  let part = about;
  const isPrice = () => part.measure === "average_price";

  /** Let the reader choose the measure, where there are several. */
  function measures() {
    $("measure-choice").hidden = !about.measures?.length;
    if (!about.measures?.length) return;
    part = about.measures[0];
    $("measure").replaceChildren(...about.measures.map((each, i) => make("option", { value: i }, titled(each.measure))));
    $("measure").addEventListener("change", (event) => {
      part = about.measures[event.target.value];
      portfolio();
    });
  }

  function portfolio() {
    $("run").textContent = `Run ${about.run_id}, ${about.finished_at} UTC · data to ${about.cutoff} · ${plural(about.n_series, "series")}, ${horizon} ahead`;
    const total = part.total;
    const first = total.mean.findIndex(known);
    // Prices have no sum: of them it is the mean.
    const over = isPrice() ? (values) => sum(values) / Math.max(1, values.filter(known).length) : sum;
    const expected = over(total.mean);
    const before = first >= about.horizon ? over(total.actual.slice(first - about.horizon, first)) : null;
    const serving = part.serving;
    const best = part.accuracy.find((row) => row.model === part.served[0]?.model) ?? part.accuracy[0];
    const baseline = best?.baseline_wape ?? null;
    const saved = baseline && known(serving.wape) ? 1 - serving.wape / baseline : null;
    const orders = reorder.counts.find((row) => row.action === "order")?.n ?? 0;
    const uncounted = reorder.counts.find((row) => row.action === "count_stock")?.n ?? 0;
    const card = (name, value, small) => make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, small)));
    $("cards").replaceChildren(
      card(
        `Expected, next ${horizon}`,
        number(expected),
        `${isPrice() ? "mean " : ""}${words(part.measure)}${before ? `, ${percent(expected / before - 1, true)} on the ${horizon} before` : ""}`,
      ),
      card(
        "Backtest error (WAPE)",
        known(serving.wape) ? percent(serving.wape) : "–",
        known(saved)
          ? `${percent(Math.abs(saved))} ${saved >= 0 ? "below" : "above"} the seasonal naive's ${percent(baseline)}`
          : "No backtest to judge by",
      ),
      card("80% interval covered", percent(serving.coverage_80), known(serving.coverage_95) ? `the 95% interval ${percent(serving.coverage_95)}` : "No backtest to judge by"),
      card("Alerts", about.alerts ? formats[0].format(sum(alerts.counts.map((row) => row.n))) : "–", about.alerts ? alerts.counts.map((row) => `${row.n} ${words(row.alert)}`).join(", ") : "switched off"),
      card("To reorder now", about.reorder ? formats[0].format(orders) : "–", !about.reorder ? "switched off" : uncounted ? `${plural(uncounted, "series")} without a stock count` : "by the reorder list below"),
    );

    const key = (kind, name, text, dash) => make("li", {}, swatch(kind, name, dash), text);
    $("total-key").replaceChildren(key("line", "text", "Actual"), key("line", "accent", "Expected"), key("line", "warm", "Backtest", "5 4"));
    chart($("total"), $("total-readout"), {
      dates: total.dates,
      start: Math.max(first, 0),
      lines: [
        { name: "actual", values: total.actual, colour: "text", width: 1.4 },
        { name: "backtest", values: total.backtest, colour: "warm", dash: [5, 4] },
        { name: "mean", values: total.mean, colour: "accent", width: 2.2 },
      ],
      bands: [],
      tell: (readout, t) => {
        if (!known(t)) return tell(readout, `${isPrice() ? "Mean" : "Sum"} of ${plural(sum(part.served.map((row) => row.n_series)), "series")}`, [["point at the chart, or focus it and use the arrow keys", null]]);
        tell(
          readout,
          dated(total.dates[t]),
          [["actual", total.actual[t]], ["expected", total.mean[t]], ["backtest", total.backtest[t]]].filter(([, v]) => known(v)).map(([name, v]) => [name, number(v)]),
        );
      },
    });

    const servedBy = new Map(part.served.map((row) => [row.model, row.n_series]));
    $("accuracy-note").textContent = part.accuracy.length
      ? `${plural(serving.n_cutoffs, "cutoff")} from ${serving.first_cutoff} to ${serving.last_cutoff}; best weighted quantile loss (WQL) first. “Saved” is the share of the seasonal naive's WAPE a model saves.`
      : "The run had no backtest, so there is nothing to judge the models by.";
    const widest = Math.max(0.01, ...part.accuracy.map((row) => Math.abs(row.forecast_value_added || 0)));
    table(
      $("accuracy"),
      [["Model"], ["WAPE"], ["Saved"], ["MASE"], ["WQL"], ["Bias"], ["80%"], ["95%"], ["Serves"]],
      part.accuracy.map((row) => {
        const gauge = make("i", { class: row.forecast_value_added < 0 ? "bad" : null });
        gauge.style.width = `${(100 * Math.abs(row.forecast_value_added || 0)) / widest}%`;
        const share = make("td", {}, make("span", { class: "gauge", "aria-hidden": "true" }, gauge), percent(row.forecast_value_added, true));
        return make(
          "tr",
          { class: servedBy.has(row.model) ? "mine" : null },
          make("th", { scope: "row" }, words(row.model)),
          cell(fixed(row.wape)),
          share,
          cell(fixed(row.mase)),
          cell(fixed(row.wql)),
          cell(percent(row.bias, true)),
          cell(percent(row.coverage_80)),
          cell(percent(row.coverage_95)),
          cell(formats[0].format(servedBy.get(row.model) ?? 0)),
        );
      }),
    );
    coverage();

    const moves = ids
      .map((id, i) => ({ id, i, is: !series.measure || series.measure[i] === part.measure, by: known(series.before[i]) && known(series.expected[i]) ? series.expected[i] - series.before[i] : 0 }))
      .filter((each) => each.is)
      .sort((a, b) => b.by - a.by);
    const list = (node, found, className) =>
      node.replaceChildren(
        ...(found.length
          ? found.map((each) =>
              make("li", {}, opener(each.id), make("span", { class: "quiet" }, `${number(series.before[each.i])} → ${number(series.expected[each.i])}`), make("b", { class: className }, percent(series.change[each.i], true))),
            )
          : [make("li", { class: "quiet" }, "None")]),
      );
    list($("risers"), moves.filter((each) => each.by > 0).slice(0, 7), "up");
    list($("fallers"), moves.filter((each) => each.by < 0).slice(-7).reverse(), "down");

    table(
      $("classes"),
      [["Demand"], ["Champion", true], ["WAPE"], ["Baseline"], ["Saved"], ["80%"]],
      part.classes.map((row) =>
        make("tr", {}, make("th", { scope: "row" }, words(row.demand_class)), cell(words(row.model), "text"), cell(fixed(row.wape)), cell(fixed(row.baseline_wape)), cell(percent(row.forecast_value_added, true)), cell(percent(row.coverage_80))),
      ),
    );

    const chips = (node, counts, name) => node.replaceChildren(...counts.map((row) => make("span", { class: "chip" }, `${words(row[name])} ${formats[0].format(row.n)}`)));
    chips($("alert-counts"), alerts.counts, "alert");
    if (!alerts.rows.length) $("alert-counts").replaceChildren(about.alerts ? "No alerts." : OFF);
    table(
      $("alerts"),
      alerts.rows.length ? [["Alert"], ["What", true], ["Value"], ["Limit"], ["Meaning", true]] : [],
      alerts.rows.map((row) => {
        // The subject of an anomaly is the series and the day; the series opens its chart.
        const rest = index.has(row.series_id) && row.subject.startsWith(row.series_id) ? row.subject.slice(row.series_id.length) : null;
        const what = rest === null ? [make("span", { dir: "auto" }, row.subject)] : [opener(row.series_id), rest];
        return make("tr", {}, cell(words(row.alert)), make("td", { class: "text wrap" }, ...what), cell(number(row.value)), cell(number(row.alert_limit)), cell(row.message, "text wrap"));
      }),
    );

    chips($("reorder-counts"), reorder.counts, "action");
    const rows = reorder.rows;
    const shown = sum(reorder.counts.map((row) => row.n)) > rows.length ? ` The first ${rows.length} are listed.` : "";
    $("reorder-note").textContent = !rows.length
      ? about.reorder ? "There are no recommendations." : OFF
      : (uncounted
          ? `Stock is not counted for ${plural(uncounted, "series")}, so no quantity can be recommended there: count it and compare with the levels below. `
          : "") +
        (rows.some((row) => row.uses_defaults) ? "Where a series has no lead time or service level of its own, the project's defaults stand in. " : "") +
        "Order when the stock position falls to the reorder point, up to the order-up-to level." +
        shown;
    const columns = [
      ["Order", "recommended_quantity", number],
      ["Value", "order_value", number],
      ["Stock position", "stock_position", number],
      ["Stockout risk", "stockout_probability", percent],
      ["Reorder point", "reorder_point", number],
      ["Order up to", "order_up_to_level", number],
    ].filter(([, name]) => rows.some((row) => known(row[name])));
    const supplied = rows.some((row) => known(row.supplier));
    table(
      $("reorder"),
      rows.length ? [["Series"], ["Action", true], ...(supplied ? [["Supplier", true]] : []), ...columns.map(([name]) => [name])] : [],
      rows.map((row) =>
        make(
          "tr",
          {},
          make("td", {}, opener(row.series_id)),
          cell(words(row.action), "text"),
          ...(supplied ? [make("td", { class: "text", dir: "auto" }, row.supplier)] : []),
          ...columns.map(([, name, format]) => cell(format(row[name]))),
        ),
      ),
    );

    const limited = ids.length < about.n_series;
    $("note-list").replaceChildren(
      ...[
        `Charts and their tables are rounded to a step of each series' own, at most one 400th of the largest value on its chart; other figures to four digits.`,
        `Expected is the mean of the forecast in force, which each series has from the champion of its demand class. The sum of means is the mean of the sum; intervals do not add up, so the total has none.`,
        `The backtest is what the champion would have said at earlier cutoffs, knowing only what was known then; the band around it is its 80% interval.`,
        about.measures?.length ? `Each measure has series, accuracy and totals of its own: they have different units. Of prices, totals are means.` : null,
        `Change compares the ${horizon} ahead with the ${horizon} before the cutoff; a series younger than that has none.`,
        limited ? `The ${plural(ids.length, "series")} with the most revenue are shown, of ${formats[0].format(about.n_series)}; totals, accuracy, coverage, alerts and the reorder list count all, the movers only those shown.` : null,
        `Portfolio figures come from the marts as they were when this file was written. The file holds all of its data and loads nothing.`,
      ]
        .filter(Boolean)
        .map((text) => make("li", {}, text)),
    );
  }

  function coverage() {
    const box = $("coverage");
    const rows = part.accuracy;
    box.replaceChildren();
    if (!rows.length) return box.append(make("p", { class: "quiet" }, "There was no backtest."));
    const levels = [50, 80, 90, 95];
    const width = Math.max(260, box.clientWidth);
    const left = 104;
    const height = 30 * rows.length + 34;
    const lowest = Math.min(50, ...rows.flatMap((row) => levels.map((level) => 100 * (row[`coverage_${level}`] ?? 1)))) - 2;
    const x = (value) => left + ((value - lowest) / (101 - lowest)) * (width - left - 10);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
    svg.append(draw("title", {}, "Coverage of the intervals by model; the table on accuracy has the figures"));
    for (const level of levels) {
      const line = draw("line", { x1: x(level), x2: x(level), y1: 6, y2: height - 22, "stroke-width": 1.5 });
      line.style.stroke = `var(--${level === 50 ? "c3" : level === 80 ? "accent" : level === 90 ? "c2" : "c1"})`;
      svg.append(line, draw("text", { x: x(level) + ({ 90: 5, 95: -5 }[level] ?? 0), y: height - 6, "text-anchor": { 90: "end", 95: "start" }[level] ?? "middle" }, `${level}%`));
    }
    rows.forEach((row, i) => {
      const y = 20 + 30 * i;
      svg.append(draw("text", { x: 0, y: y + 4 }, words(row.model)));
      for (const level of levels) {
        const value = row[`coverage_${level}`];
        if (!known(value)) continue;
        const paint = `var(--${level === 50 ? "c3" : level === 80 ? "accent" : level === 90 ? "c2" : "c1"})`;
        const bar = draw("line", { x1: x(level), x2: x(100 * value), y1: y, y2: y, "stroke-width": 2 });
        const dot = draw("circle", { cx: x(100 * value), cy: y, r: 4.5 }, draw("title", {}, `${words(row.model)}: the ${level}% interval covered ${percent(value)}`));
        bar.style.stroke = paint;
        dot.style.fill = paint;
        svg.append(bar, dot);
      }
    });
    box.append(svg);
  }

  // --- Explorer ---

  let shown = [];
  let at = -1;
  const filters = new Map();
  const SORTS = [
    ["Revenue", "revenue", -1],
    [series.measure ? "Expected" : `Expected ${words(about.measure)}`, "expected", -1],
    ["Rising most", "change", -1],
    ["Falling most", "change", 1],
    ["Least certain", "spread", -1],
    ["Largest backtest error", "wape", -1],
    ["Most alerts", "alerts", -1],
    ["Name", "series_id", 1],
  ].filter(([, name]) => series[name].some(known));
  const lowered = ids.map((id) => id.toLowerCase());
  const collator = new Intl.Collator("en", { numeric: true });

  function controls() {
    const box = $("filters");
    const choice = (text, options, onchange) => {
      const select = make("select", { onchange }, ...options.map(([value, name]) => make("option", { value }, name)));
      box.append(make("label", {}, text, select));
      return select;
    };
    const columns = [["Demand", "demand_class"], ["Model", "model"], ...(series.measure ? [["Measure", "measure"]] : []), ...Object.keys(series).filter((name) => name.startsWith("attribute/")).map((name) => [titled(name.slice(10)), name])];
    for (const [text, name] of columns) {
      const values = [...new Set(series[name].filter(known))].sort(collator.compare);
      if (values.length < 2) continue;
      const named = name.startsWith("attribute/") ? (value) => value : words;
      // Options are numbered, for a value may be an empty text.
      filters.set(name, { values, select: choice(text, [["", "All"], ...values.map((value, i) => [i, named(value)])], () => sift(true)) });
    }
    filters.sort = choice("Sort by", SORTS.map(([text], i) => [i, text]), () => sift(true));
    filters.sort.id = "sort";
    $("search").addEventListener("input", () => sift(true));
    $("search").addEventListener("keydown", (event) => {
      if (["ArrowDown", "ArrowUp", "Enter"].includes(event.key) && shown.length) {
        event.preventDefault();
        $("list").focus();
        if (!shown.includes(at)) select(shown[0]);
      }
    });
    $("list").addEventListener("scroll", rows);
    $("list").addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor($("list").clientHeight / ROW) - 1);
      const by = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      step(by);
    });
    $("previous").addEventListener("click", () => step(-1));
    $("next").addEventListener("click", () => step(1));
  }

  function step(by) {
    if (!shown.length) return;
    const now = shown.indexOf(at);
    select(shown[now < 0 ? 0 : Math.max(0, Math.min(shown.length - 1, now + by))]);
  }

  /** Narrow the list to the search and the filters, in the order chosen. */
  function sift(toTop) {
    const parts = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = [...filters].filter(([, each]) => each.select.value !== "").map(([name, each]) => [series[name], each.values[each.select.value]]);
    shown = ids.map((_, i) => i).filter((i) => parts.every((part) => lowered[i].includes(part)) && chosen.every(([values, value]) => values[i] === value));
    const [, name, way] = SORTS[filters.sort.value];
    const values = series[name];
    shown.sort((a, b) => {
      if (known(values[a]) !== known(values[b])) return known(values[a]) ? -1 : 1;
      return (way * (typeof values[a] === "string" ? collator.compare(values[a], values[b]) : values[a] - values[b])) || a - b;
    });
    $("count").textContent = shown.length === ids.length ? plural(ids.length, "series") : `${formats[0].format(shown.length)} of ${plural(ids.length, "series")}`;
    if (toTop) {
      $("list").scrollTop = 0;
      if (shown.length && !shown.includes(at)) select(shown[0]);
    }
    rows();
  }

  /** Draw the rows in view, and a few around them. */
  function rows() {
    const list = $("list");
    const box = $("rows");
    box.style.height = `${shown.length * ROW}px`;
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 3);
    const to = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 3);
    box.replaceChildren();
    list.removeAttribute("aria-activedescendant");
    if (!shown.length) return box.append(make("p", { class: "empty" }, "No series matches. Shorten the search or set the filters to All."));
    for (let place = from; place < to; place++) {
      const i = shown[place];
      const row = make(
        "div",
        { class: "row", role: "option", id: `row-${i}`, "aria-selected": i === at ? "true" : "false", "aria-setsize": shown.length, "aria-posinset": place + 1, onclick: () => select(i) },
        make(
          "div",
          {},
          make("b", { dir: "auto" }, ids[i]),
          make("span", {}, `${words(series.demand_class[i] ?? "")} · ${number(series.expected[i])} expected${known(series.change[i]) ? `, ${percent(series.change[i], true)}` : ""}`),
        ),
      );
      row.style.top = `${place * ROW}px`;
      row.append(sparkline(i));
      box.append(row);
      if (i === at) list.setAttribute("aria-activedescendant", row.id);
    }
  }

  function sparkline(i) {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const scale = devicePixelRatio || 1;
    const [width, height] = [84, 34];
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const actual = curve("actual", i);
    const mean = curve("mean", i);
    const ahead = mean.findIndex(known);
    const start = Math.max(0, (ahead < 0 ? dates.length : ahead) - 2 * about.horizon);
    const largest = Math.max(...actual.slice(start).map(Number), ...mean.map(Number)) || 1;
    const trace = (values, name, thick) => {
      pen.beginPath();
      pen.strokeStyle = colour(name);
      pen.lineWidth = thick;
      let on = false;
      for (let t = start; t < dates.length; t++) {
        if (!known(values[t])) {
          on = false;
          continue;
        }
        const [x, y] = [((t - start) / Math.max(1, dates.length - 1 - start)) * (width - 2) + 1, height - 2 - (Math.max(0, values[t]) / largest) * (height - 4)];
        if (on) pen.lineTo(x, y);
        else pen.moveTo(x, y);
        on = true;
      }
      pen.stroke();
    };
    trace(actual, "quiet", 1);
    trace(mean, "accent", 2);
    return canvas;
  }

  /** Show a series, and have it in view in the list. */
  function select(i) {
    at = i;
    const list = $("list");
    const place = shown.indexOf(i);
    if (place >= 0) {
      if (place * ROW < list.scrollTop) list.scrollTop = place * ROW;
      else if ((place + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (place + 1) * ROW - list.clientHeight;
    }
    rows();
    detail();
  }

  /** Show a series from elsewhere on the page. */
  function open(i) {
    if (!shown.includes(i)) {
      $("search").value = "";
      filters.forEach((each) => (each.select.value = ""));
      sift(false);
    }
    select(i);
    $("series").scrollIntoView();
    $("list").focus({ preventScroll: true });
  }

  // --- One series ---

  const toggled = { intervals: true, backtest: true, promotions: true, holidays: true };

  function toggles() {
    const box = $("toggles");
    const item = (name, text, picture) => {
      const input = make("input", { type: "checkbox", name, onchange: (event) => { toggled[name] = event.target.checked; fan(); } });
      input.checked = Boolean(toggled[name]);
      box.append(make("label", {}, input, picture, text));
    };
    box.append(make("span", {}, swatch("line", "text"), " Actual"), make("span", {}, swatch("line", "accent"), " Expected"));
    item("intervals", "80% and 95% intervals", swatch("band", "accent"));
    if (folds.length) item("backtest", "Backtest", swatch("line", "quiet", "5 4"));
    if (promotionsAt !== null) item("promotions", "Promotions", swatch("tick", "promo"));
    if (holidays.size) item("holidays", "Holidays", swatch("post", "c4"));
    if (models.length > 1) for (const name of models) item(`model/${name}`, words(name), swatch("line", modelColour(name), "2 2"));
  }

  function detail() {
    const i = at;
    $("name").textContent = ids[i];
    const attributes = Object.keys(series).filter((name) => name.startsWith("attribute/") && known(series[name][i])).map((name) => `${words(name.slice(10))}: ${series[name][i]}`);
    $("facts").textContent = [`${words(series.demand_class[i] ?? "unknown")} demand`, `forecast by ${words(series.model[i] ?? "none")}`, ...(series.measure ? [words(series.measure[i])] : []), ...attributes].join(" · ");
    const place = shown.indexOf(i);
    $("previous").disabled = place <= 0;
    $("next").disabled = place < 0 || place === shown.length - 1;
    fan();
    const figure = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));
    $("figures").replaceChildren(
      figure(`Next ${horizon}`, number(series.expected[i])),
      figure(`The ${horizon} before`, number(series.before[i])),
      figure("Change", percent(series.change[i], true)),
      figure("Backtest WAPE", percent(series.wape[i])),
      ...(known(series.revenue[i]) ? [figure("Revenue, all time", number(series.revenue[i]))] : []),
      ...(known(series.alerts[i]) ? [figure("Alerts", formats[0].format(series.alerts[i]))] : []),
    );
    explained(i);
    if ($("table-details").open) figures();
  }

  function fan() {
    const i = at;
    const values = (name) => curve(name, i);
    const actual = values("actual");
    const mean = values("mean");
    const [low95, low80, high80, high95] = ["lower_95", "lower_80", "upper_80", "upper_95"].map(values);
    const lines = [];
    const bands = [];
    const past = folds.map((fold) => values(`${fold}/mean`));
    if (toggled.backtest) {
      folds.forEach((fold, k) => {
        lines.push({ name: `${fold}/low`, values: values(`${fold}/lower_80`) }, { name: `${fold}/high`, values: values(`${fold}/upper_80`) }, { name: fold, values: past[k], colour: "quiet", dash: [5, 4] });
        bands.push({ upper: `${fold}/high`, lower: `${fold}/low`, colour: "quiet", alpha: 0.14 });
      });
    }
    if (toggled.intervals) {
      lines.push({ name: "low95", values: low95 }, { name: "high95", values: high95 }, { name: "low80", values: low80 }, { name: "high80", values: high80 });
      bands.push({ upper: "high95", lower: "low95", colour: "band", alpha: 0.15 }, { upper: "high80", lower: "low80", colour: "band", alpha: 0.24 });
    }
    const others = models.filter((name) => toggled[`model/${name}`]).map((name) => [name, values(`model/${name}`)]);
    for (const [name, found] of others) lines.push({ name: `model/${name}`, values: found, colour: modelColour(name), dash: models.indexOf(name) > 4 ? [6, 3] : [2, 2] });
    lines.push({ name: "actual", values: actual, colour: "text", width: 1.4 }, { name: "mean", values: mean, colour: "accent", width: 2.4 });
    const start = Math.max(0, mean.findIndex(known));
    $("fan").setAttribute("aria-label", `${ids[i]}: actual to ${about.cutoff}, then ${number(series.expected[i])} expected over ${horizon}`);
    chart($("fan"), $("readout"), {
      dates,
      start,
      lines,
      bands,
      under: (u) => {
        const { ctx } = u;
        const { left, top, width, height } = u.bbox;
        const pixel = devicePixelRatio || 1;
        const x = (t) => u.valToPos(u.data[0][t], "x", true);
        const gap = width / Math.max(1, dates.length - 1);
        ctx.save();
        ctx.beginPath();
        ctx.rect(left, top, width, height);
        ctx.clip();
        if (toggled.holidays) {
          ctx.strokeStyle = alpha(colour("c4"), 0.75);
          ctx.lineWidth = pixel;
          ctx.setLineDash([3 * pixel, 3 * pixel]);
          ctx.beginPath();
          for (const t of holidays.keys()) {
            ctx.moveTo(x(t), top);
            ctx.lineTo(x(t), top + height);
          }
          ctx.stroke();
        }
        if (toggled.promotions) {
          ctx.fillStyle = alpha(colour("promo"), 0.55);
          for (let t = 0; t < dates.length; t++) {
            const level = promotion(i, t);
            if (level) ctx.fillRect(x(t) - gap * 0.4, top + height - (3 + level) * 1.6 * pixel, gap * 0.8, (3 + level) * 1.6 * pixel);
          }
        }
        ctx.restore();
      },
      tell: (readout, t) => {
        if (!known(t)) return tell(readout, `${dates[0]} to ${dates[dates.length - 1]}`, [["point at the chart, or focus it and use the arrow keys", null]]);
        const pairs = [];
        const say = (name, value) => known(value) && pairs.push([name, number(value)]);
        say("actual", actual[t]);
        say("expected", mean[t]);
        if (toggled.intervals && known(low80[t])) pairs.push(["80%", `${number(low80[t])} to ${number(high80[t])}`], ["95%", `${number(low95[t])} to ${number(high95[t])}`]);
        if (toggled.backtest) past.forEach((found) => say("backtest", found[t]));
        for (const [name, found] of others) say(words(name), found[t]);
        if (promotion(i, t)) pairs.push(["promotion", null]);
        if (holidays.has(t)) pairs.push([holidays.get(t), null]);
        tell(readout, dated(dates[t]), pairs);
      },
    });
  }

  function explained(i) {
    const parts = Object.entries(series.explained[i] ?? {}).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    $("explained").hidden = !parts.length;
    if (!parts.length) return;
    const total = sum(parts.map(([, value]) => value));
    const price = (series.measure?.[i] ?? about.measure) === "average_price";
    $("explained-note").textContent = `${price ? "Mean" : "Sum"} over the next ${horizon}. The parts add up to the forecast; what is below zero lowers it, as no promotion does where there mostly is one${parts.some(([name]) => models.includes(name)) ? "; a part with the name of a model is what it brings to the ensemble" : ""}.`;
    const low = Math.min(0, total, ...parts.map(([, value]) => value));
    const high = Math.max(0, total, ...parts.map(([, value]) => value));
    const at = (value) => (100 * (value - low)) / (high - low || 1);
    $("bars").replaceChildren(
      ...[...parts, ["Sum", total]].map(([name, value], place) => {
        const fill = make("i", { class: value < 0 ? "minus" : null });
        fill.style.left = `${at(Math.min(0, value))}%`;
        fill.style.width = `${at(Math.max(0, value)) - at(Math.min(0, value))}%`;
        const zero = make("u", {});
        zero.style.left = `${at(0)}%`;
        return make("div", { class: place === parts.length ? "bar sum" : "bar", role: "listitem" }, make("span", {}, titled(name)), make("span", { class: "track", "aria-hidden": "true" }, fill, zero), make("span", {}, (place < parts.length && value > 0 ? "+" : "") + number(value)));
      }),
    );
  }

  function figures() {
    const i = at;
    const columns = [
      ["Actual", "actual"], ["Expected", "mean"], ["80% from", "lower_80"], ["80% to", "upper_80"], ["95% from", "lower_95"], ["95% to", "upper_95"],
      ...folds.map((fold) => [folds.length > 1 ? `Backtest ${fold.slice(5)}` : "Backtest", `${fold}/mean`]),
      ...(models.length > 1 ? models.map((name) => [words(name), `model/${name}`]) : []),
    ].map(([text, name]) => [text, curve(name, i)]);
    const order = [...dates.keys()].reverse();
    const cells = (value) => cell(known(value) ? number(value) : "");
    table(
      $("figures-table"),
      [[titled(about.grain)], ...columns.map(([text]) => [text]), ["Events", true]],
      order.map((t) =>
        make("tr", {}, make("th", { scope: "row" }, dates[t]), ...columns.map(([, values]) => cells(values[t])), cell([promotion(i, t) ? "promotion" : "", holidays.get(t) ?? ""].filter(Boolean).join(", "), "text")),
      ),
    );
  }

  // --- Start ---

  function theme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    $("theme").setAttribute("aria-pressed", String(dark));
  }
  theme(matchMedia("(prefers-color-scheme: dark)").matches);
  $("theme").addEventListener("click", () => {
    theme(document.documentElement.dataset.theme !== "dark");
    redraw();
    rows();
  });
  $("main").hidden = false;
  measures();
  portfolio();
  controls();
  toggles();
  sift(true);
  $("table-details").addEventListener("toggle", () => $("table-details").open && figures());
  let resized = 0;
  let lastWidth = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === lastWidth) return; // a phone's address bar comes and goes
    lastWidth = innerWidth;
    cancelAnimationFrame(resized);
    resized = requestAnimationFrame(() => {
      redraw();
      coverage();
      rows();
    });
  });
  document.documentElement.dataset.ready = "true";
})();
