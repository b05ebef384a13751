"""The frame, the style and the script of report.html. Nothing is fetched: system fonts, inline pictures."""

import html

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1>{badge}</header>
<main>
{body}
</main>
</body>
</html>
"""  # noqa: E501

STYLE = """
:root { color-scheme: light dark; --ground: #f6f6f4; --card: #ffffff; --ink: #1d1f21; --soft: #63676c; --line: #dcdcd8;
  --accent: #3366a8; --ok: #1f7a4d; --bad: #b3372f; }
@media (prefers-color-scheme: dark) { :root { --ground: #17181a; --card: #202225; --ink: #e8e8e6; --soft: #a0a4a8;
  --line: #363a3e; --accent: #86b0e6; --ok: #6cc79a; --bad: #f08f86; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 24px clamp(12px, 3vw, 40px) 64px; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 12px; margin-bottom: 16px; }
h1 { font-size: 26px; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 19px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 0 0 8px; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: 1px 10px; border: 1px solid currentColor; border-radius: 999px;
  font-size: 13px; font-weight: 600; }
.ok { color: var(--ok); } .bad { color: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 4px 0; margin: 0;
  padding: 8px 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.facts div { padding: 4px 14px; } dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.notes { padding-left: 20px; } .lead, figcaption, .small { color: var(--soft); font-size: 13px; margin: 0 0 8px; }
.small b { margin: 0 16px 0 4px; font-weight: 500; color: var(--ink); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px; margin: 0 0 12px; }
.row { display: grid; grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 8px; }
.pair { display: grid; grid-template-columns: minmax(0, 384px) minmax(0, 1fr); gap: 20px; align-items: start; }
@media (max-width: 700px) { .pair { grid-template-columns: minmax(0, 1fr); } }
.row.steps { grid-template-columns: repeat(5, minmax(0, 1fr)); }
.row.strip { grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); }
@media (max-width: 800px) { .row:not(.strip) { grid-template-columns: repeat(3, minmax(0, 1fr)); } }
@media (max-width: 420px) { .row:not(.strip) { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
figure { margin: 0; min-width: 0; } figcaption { margin: 4px 0 0; text-align: center; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; border-radius: 4px; }
.turntable { max-width: 384px; } .controls { display: flex; gap: 10px; margin-top: 8px; } .controls input { flex: 1; }
button { font: inherit; padding: 2px 12px; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: 6px; cursor: pointer; } input { accent-color: var(--accent); } a { color: var(--accent); }
.bar { display: inline-block; width: 140px; height: 10px; border-radius: 3px; vertical-align: -1px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 12px; }
svg { display: block; width: 100%; height: auto; } .frame { fill: var(--card); stroke: var(--line); }
.wall { stroke: var(--line); } .table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin-top: 12px; }
th, td { padding: 2px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 500; color: var(--soft); } th:first-child { text-align: left; }
th[colspan] { text-align: center; }
.first { border-left: 1px solid var(--line); }
polyline { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; } circle { fill: var(--accent); }
"""

PLAYER = """
const image = document.getElementById("turn"), slider = document.getElementById("angle");
const button = document.getElementById("play");
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
const show = n => { slider.value = n; image.src = frames[n]; };
const label = () => { button.textContent = playing ? "Pause" : "Turn"; };
slider.oninput = () => { playing = false; label(); show(+slider.value); };
button.onclick = () => { playing = !playing; label(); };
setInterval(() => { if (playing) show((+slider.value + 1) % frames.length); }, 80);
label();
"""


def escape(text) -> str:
    """Any value as text that HTML takes for nothing else."""
    return html.escape(str(text), quote=True)


def section(title: str, content: str, lead: str = "") -> str:
    """A part of the page under a heading; all three are HTML."""
    note = f'<p class="lead">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{note}{content}</section>"
