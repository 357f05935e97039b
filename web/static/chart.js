// The chart: what comes in stacked above the line, what goes out below it, a colour for each uplink.

import { html, useEffect, useRef } from './vendor/htm-preact.js';
import { rate } from './format.js';

const height = 240;
const smallest = 1e5; // bits per second that the axis reaches at least
const darkScheme = matchMedia('(prefers-color-scheme: dark)');

const zero = (v) => v ?? 0;

// stacked adds each uplink's values to those below it.
function stacked(history, names, key, sign) {
  let below = null;
  return names.map((name) => {
    const own = history.uplinks[name]?.[key] || [];
    const top = history.x.map((_, i) => {
      const under = below?.[i] ?? null;
      return (own[i] ?? null) === null && under === null ? null : zero(under) + sign * zero(own[i]);
    });
    below = top;
    return top;
  });
}

// dataOf has the tallest first, as those after it are painted over it.
function dataOf(history, names) {
  return [history.x, ...stacked(history, names, 'down', 1).reverse(), ...stacked(history, names, 'up', -1).reverse()];
}

function seriesOf(names, colour) {
  const one = (name, i) => ({ label: name, stroke: colour(`--c${i % 8}`), fill: colour(`--f${i % 8}`), fillTo: 0, width: 1.5, points: { show: false } });
  const half = names.map(one).reverse();
  return [{}, ...half, ...half.map((s) => ({ ...s }))];
}

function range(_, low, high) {
  const most = Math.max(high || 0, smallest);
  return [Math.min(low || 0, -most / 8) * 1.08, most * 1.08];
}

function options(names, width, onCursor) {
  const styles = getComputedStyle(document.documentElement);
  const colour = (name) => styles.getPropertyValue(name).trim();
  const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' };
  return {
    width, height, legend: { show: false }, cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    padding: [8, 8, 0, 0],
    scales: { y: { range } },
    axes: [
      { ...axis, size: 34, values: [[3600, '{HH}:{mm}', null, null, '\n{D} {MMM}', null, null, null, 1], [60, '{HH}:{mm}', null, null, null, null, null, null, 1], [1, '{HH}:{mm}:{ss}', null, null, null, null, null, null, 1]] },
      { ...axis, size: 76, values: (_, splits) => splits.map((v) => (v === 0 ? '0' : rate(Math.abs(v)))) },
    ],
    series: seriesOf(names, colour),
    hooks: { setCursor: [(u) => onCursor(u.cursor.idx ?? null)], draw: [baseline] },
  };
}

// baseline separates what comes in from what goes out.
function baseline(u) {
  const y = Math.round(u.valToPos(0, 'y', true)) + 0.5;
  u.ctx.save();
  u.ctx.strokeStyle = u.axes[0].stroke();
  u.ctx.beginPath();
  u.ctx.moveTo(u.bbox.left, y);
  u.ctx.lineTo(u.bbox.left + u.bbox.width, y);
  u.ctx.stroke();
  u.ctx.restore();
}

export function Chart({ history, names, label, onCursor }) {
  const box = useRef();
  const plot = useRef();
  const data = useRef();
  data.current = dataOf(history, names);
  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(names, box.current.clientWidth, onCursor), data.current, box.current);
    };
    draw();
    const sized = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height }));
    sized.observe(box.current);
    darkScheme.addEventListener('change', draw);
    return () => {
      darkScheme.removeEventListener('change', draw);
      sized.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [names.join('\n'), history.span]);
  useEffect(() => plot.current?.setData(data.current), [history]);
  return html`<div class="chart" ref=${box} role="img" aria-label=${label}></div>`;
}
