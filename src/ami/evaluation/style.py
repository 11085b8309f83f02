"""How pages look: what they all begin and end with, and one sheet, the colours first, light and dark."""

from __future__ import annotations

from html import escape

_STYLE = """
:root {
  --paper: #faf8f3; --card: #fffefb; --ink: #1f2838; --soft: #5c6577; --line: #e2ded3; --warn: #fff0dc;
  --series0: #d04a12; --series1: #0072b2; --series2: #00835f; --series3: #a8508a; --series4: #6b7280;
  --series5: #946a00; --series6: #3d6fd1; --series7: #b0415f; --series8: #4f7d2a;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14181f; --card: #1b212b; --ink: #e9e6dd; --soft: #a0a8b6; --line: #313947; --warn: #3a2a14;
  --series0: #ff8d52; --series1: #5cbcf2; --series2: #3fcf9f; --series3: #e596c8; --series4: #a7afbd;
  --series5: #e8bb4a; --series6: #8fb0ff; --series7: #f793ab; --series8: #a4d37b;
} }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { max-width: 1080px; margin: 0 auto; padding: 56px 24px 96px;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1, h2 { font-family: Charter, "Iowan Old Style", Georgia, "Liberation Serif", serif; font-weight: 600;
  letter-spacing: -0.01em; line-height: 1.15; text-wrap: balance; }
h1 { font-size: clamp(2rem, 5.5vw, 3.1rem); margin: 0 0 16px; }
h1 em { color: var(--series0); font-style: normal; }
h2 { font-size: 1.65rem; margin: 0 0 14px; } h2:has(+ .said) { margin-bottom: 6px; }
h3 { font-size: 1.02rem; margin: 0 0 4px; }
section { margin-top: 64px; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: 0.86em; }
.kicker { margin: 0 0 6px; color: var(--soft); font-size: 0.8rem; letter-spacing: 0.12em; text-transform: uppercase; }
.lead { font-size: 1.15rem; max-width: 44em; margin: 0 0 28px; }
.said { color: var(--soft); max-width: 46em; margin: 0 0 18px; }
.warning { background: var(--warn); border-left: 4px solid var(--series0); border-radius: 4px; padding: 10px 16px; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 14px 28px; margin: 0;
  padding: 20px 0; border: solid var(--line); border-width: 1px 0; font-size: 0.92rem; }
.facts div:first-child { grid-column: 1 / -1; }
dt { color: var(--soft); font-size: 0.78rem; } dd { margin: 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 3px 10px 3px 0; text-align: left; font-weight: 400; vertical-align: middle; }
td:last-child:not(.plot) { padding-right: 0; }
caption { text-align: left; color: var(--soft); font-size: 0.8rem; padding: 10px 0 6px; }
caption b { color: var(--ink); font-size: 0.92rem; display: block; }
.plot { width: 40%; min-width: 90px; } .value { font-weight: 600; text-align: right; white-space: nowrap; }
.range, .n { color: var(--soft); text-align: right; white-space: nowrap; font-size: 0.84rem; }
thead th { color: var(--soft); font-size: 0.78rem; } thead th:nth-child(n + 3) { text-align: right; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.glance tr.next th, .glance tr.next td { border-top: 1px solid var(--line); padding-top: 8px; }
.glance th span { color: var(--soft); } .glance tbody tr { height: 34px; } .glance tr.scale { height: 26px; }
.glance .value { font-size: 1.1rem; color: var(--series0); }
.glance tbody th b { display: block; font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 20px; }
.card { margin: 0; padding: 18px 20px; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.card table { font-size: 0.9rem; table-layout: fixed; } .who { width: 6.9em; } .worth { width: 5.2em; }
.between { width: 6.9em; } .card .own { color: var(--series0); font-weight: 600; } .card .own th { font-weight: 600; }
svg { display: block; } .whisker { width: 100%; height: 20px; overflow: visible; }
.axis { width: 100%; height: 14px; font-size: 10.5px; fill: var(--soft); overflow: visible; }
.tick { stroke: var(--line); } .mark, .bar { stroke: currentColor; }
.bar { stroke-width: 3px; opacity: 0.55; stroke-linecap: round; }
.mark { fill: var(--card); stroke-width: 1.6px; } .mark.full { fill: currentColor; stroke-width: 2.8px; }
.s0 { color: var(--series0); } .s1 { color: var(--series1); } .s2 { color: var(--series2); }
.s3 { color: var(--series3); } .s4 { color: var(--series4); } .s5 { color: var(--series5); }
.s6 { color: var(--series6); } .s7 { color: var(--series7); } .s8 { color: var(--series8); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 0 0 16px; padding: 0; list-style: none;
font-size: 0.88rem; }
.legend li { display: flex; align-items: center; gap: 6px; } .key { width: 16px; height: 16px; }
.chart { width: 100%; height: auto; stroke-linejoin: round; } figcaption { font-size: 0.9rem; margin-bottom: 8px; }
.smalls { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 240px), 1fr)); gap: 26px 24px; }
.small { margin: 0; display: flex; flex-direction: column; justify-content: space-between; }
.ends { color: var(--series0); font-variant-numeric: tabular-nums; white-space: nowrap; }
small { display: block; min-height: 1.35em; color: var(--soft); font-size: 0.8rem; line-height: 1.35; }
.film { margin: 0 0 34px; } .reel { display: flex; gap: 20px; overflow-x: auto; padding-bottom: 6px; }
.rows { flex: none; } .goal { position: sticky; right: 0; background: var(--paper); padding-left: 4px; }
.which { display: block; color: var(--soft); font-size: 0.78rem; line-height: 1.7; }
.frames { display: flex; gap: 3px; } .film img { image-rendering: pixelated; display: block; border-radius: 2px;
  width: clamp(56px, calc((min(100vw, 1080px) - 90px) / (var(--frames) + 1) - 4px), 128px); height: auto; }
.goal img { outline: 2px solid var(--series2); outline-offset: 1px; margin: 0 3px 3px; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 18px;
overflow-x: auto; }
li { margin: 4px 0; max-width: 52em; } details { margin-top: 14px; } summary { cursor: pointer; color: var(--soft); }
details th { color: var(--soft); vertical-align: top; white-space: nowrap; } details td { overflow-wrap: anywhere; }
@media (max-width: 560px) {
  body { padding: 32px 16px 64px; } section { margin-top: 48px; }
  .card { padding: 14px 14px; } .card table { font-size: 0.8rem; } .who { width: 6.8em; }
  .card .range { font-size: 0.78rem; } .card th, .card td { padding-right: 5px; } th, td { padding-right: 7px; }
  .smalls { grid-template-columns: 1fr 1fr; gap: 20px 14px; }
  .glance thead, .glance .n { display: none; }
  .glance tr { display: grid; grid-template-columns: 1fr auto auto; gap: 0 8px; align-items: center; padding: 3px 0; }
  .glance tbody tr { height: auto; } .glance th { grid-column: 1; border: 0 !important; }
  .glance td { border: 0 !important; padding: 0; }
  .glance .plot { grid-column: 1 / -1; grid-row: 2; width: auto; }
  .glance tr.next { border-top: 1px solid var(--line); padding-top: 8px; }
}
@media print { section { break-inside: avoid-page; } details { display: none; } }
"""


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole HTML document around ``body``, which forbids itself to load anything; without ``script`` it runs none."""
    runs = "; script-src 'unsafe-inline'; media-src data:" if script else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'{runs}; img-src data:"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{_STYLE}{style}</style>
</head>
<body>
{body}{f"<script>{script}</script>{chr(10)}" if script else ""}</body>
</html>
"""
