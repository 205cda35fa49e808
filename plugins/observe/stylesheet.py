"""The report's CSS: light and dark as the reader's system asks, from a telephone's width to a wide screen's."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --ink: #1d2125; --soft: #62686f; --rule: #e3e3de;
  --training: #7d9cc6; --evaluation: #c2410c; --random: #858b92; --measure: #2f6db5;
  --warn: #9a3412; --warn-card: #fff4ec;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121417; --card: #1a1d21; --ink: #e7e8e6; --soft: #9aa1a8; --rule: #2d3238;
    --training: #5d82b5; --evaluation: #fb923c; --random: #7d848c; --measure: #74a9e6;
    --warn: #fdba74; --warn-card: #2b1f17;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h1 span { color: var(--soft); font-weight: 400; }
h2 { font-size: 18px; margin: 44px 0 14px; }
p { margin: 6px 0; }
.soft { color: var(--soft); overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px; min-width: 0; }
.warn {
  background: var(--warn-card); border-color: var(--warn); color: var(--warn);
  margin-top: 20px; overflow-wrap: anywhere;
}

.tiles { display: grid; gap: 12px; grid-template-columns: repeat(6, minmax(0, 1fr)); margin: 24px 0 12px; }
.tile dt { color: var(--soft); font-size: 13px; }
.tile dd { margin: 0; font-size: 23px; line-height: 1.35; font-weight: 600; white-space: nowrap; }
.tile .soft { margin: 0; font-size: 12.5px; }
.tile.first dd { color: var(--evaluation); }

.lead { display: grid; gap: 12px; grid-template-columns: minmax(0, 1fr); }
.lead.video { grid-template-columns: minmax(0, 1fr) 340px; }
.many { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr)); }
.pair { display: grid; gap: 12px 24px; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); align-items: start; }
.stack { display: grid; gap: 12px; grid-template-columns: minmax(0, 1fr); }
figure { margin: 0; }
figcaption {
  display: flex; flex-wrap: wrap; justify-content: space-between; align-items: baseline; gap: 0 12px;
  font-weight: 600; margin-bottom: 8px; overflow-wrap: anywhere;
}
figcaption small { font-weight: 400; color: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
video {
  display: block; width: 100%; max-height: 460px;
  border-radius: 6px; background: #000; image-rendering: pixelated;
}

.chart { display: block; width: 100%; height: auto; }
.narrow { display: none; }
.grid { stroke: var(--rule); }
.axis { stroke: var(--soft); stroke-opacity: 0.6; }
.tick { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.band { stroke: none; fill-opacity: 0.18; }
.training { stroke: var(--training); } .evaluation { stroke: var(--evaluation); }
.random { stroke: var(--random); stroke-dasharray: 6 5; } .measure { stroke: var(--measure); stroke-width: 1.75; }
.band.training, .dot.training { fill: var(--training); } .band.measure, .dot.measure { fill: var(--measure); }
.dot.evaluation { fill: var(--evaluation); } .dot.random { fill: var(--random); }
.band, .dot { stroke: none; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 8px; font-size: 13px; color: var(--soft); }
.legend svg { vertical-align: middle; margin-right: 6px; }

.scroll { overflow: auto; max-height: 420px; padding: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 18px; text-align: right; white-space: nowrap; border-top: 1px solid var(--rule); }
thead th {
  position: sticky; top: 0; background: var(--card); border: 0;
  color: var(--soft); font-weight: 500; font-size: 13px; line-height: 1.3; white-space: normal; vertical-align: bottom;
}
th:first-child, td:first-child { text-align: left; }
td.text, th.text { text-align: left; white-space: normal; overflow-wrap: anywhere; }
td.share { background: color-mix(in srgb, var(--measure) calc(var(--share) * 65%), transparent); }
pre {
  margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}

@media (max-width: 900px) {
  .lead.video { grid-template-columns: minmax(0, 1fr); }
  .tiles { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .pair { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 620px) {
  main { padding: 24px 14px 48px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .wide { display: none; }
  .narrow { display: block; }
  th, td { padding: 7px 12px; }
}
"""
