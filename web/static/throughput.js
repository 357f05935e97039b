// Throughput over time, and which uplink was in which state when.

import { html, useState } from './vendor/htm-preact.js';
import { clock, rate, shape } from './format.js';
import { Chart } from './chart.js';
import { Choice, Swatch } from './parts.js';
import { mean, useHistory } from './series.js';

const spans = { live: '15 minutes', hour: 'Hour', day: 'Day' };
const tableRows = 12;

function Legend({ history, names, at }) {
  const value = (name, key) => {
    const list = history.uplinks[name]?.[key] || [];
    const v = list[at ?? list.length - 1] ?? null;
    return v === null ? '–' : rate(v);
  };
  return html`<div class="legend">
    <span class="quiet">${at === null ? 'latest' : clock(history.x[at] * 1000)}</span>
    ${names.map((name, i) => html`<span><${Swatch} of=${i} />${name}
      <b>↓ ${value(name, 'down')}</b> <b>↑ ${value(name, 'up')}</b></span>`)}
  </div>`;
}

// Timeline is a bar for each uplink, in the colours of its states.
function Timeline({ history, names }) {
  const from = history.x[0];
  const to = history.x.at(-1) + history.step;
  const place = (t) => (100 * (Math.max(from, Math.min(to, t)) - from)) / (to - from);
  const parts = (states) => states
    .map((s, i) => ({ ...s, until: states[i + 1]?.at ?? to }))
    .filter((s) => s.state && s.until > from);
  return html`<div class="timeline" aria-label="States over the same time" role="group">
    ${names.map((name) => html`<div class="row"><span class="name">${name}</span><span class="track">
      ${parts(history.uplinks[name]?.states || []).map((s) => html`<span class="part ${s.state}"
        style=${{ left: `${place(s.at)}%`, width: `${place(s.until) - place(s.at)}%` }}
        title="${s.state} ${clock(s.at * 1000)} – ${clock(s.until * 1000)}">
        <span class="unseen">${s.state} from ${clock(s.at * 1000)} to ${clock(s.until * 1000)}.</span></span>`)}
    </span></div>`)}
    <p class="key quiet" aria-hidden="true">${['up', 'degraded', 'portal', 'down', 'disabled'].map((s) => html`<span><span class="mark ${s}">${shape(s)}</span> ${s}</span>`)}</p>
  </div>`;
}

// Table says the same in numbers, for who cannot see the chart.
function Table({ history, names }) {
  const size = Math.ceil(history.x.length / tableRows);
  const rows = [];
  for (let i = 0; i < history.x.length; i += size) rows.push(i);
  const cell = (name, key, i) => {
    const v = mean((history.uplinks[name]?.[key] || []).slice(i, i + size));
    return v === null ? '–' : rate(v);
  };
  return html`<details class="table"><summary>As a table</summary><div class="scroll"><table>
    <caption class="unseen">Mean rates of each uplink</caption>
    <thead><tr><th scope="col">From</th>${names.map((n) => html`<th scope="col">${n} down</th><th scope="col">${n} up</th>`)}</tr></thead>
    <tbody>${rows.map((i) => html`<tr><th scope="row">${clock(history.x[i] * 1000)}</th>
      ${names.map((n) => html`<td>${cell(n, 'down', i)}</td><td>${cell(n, 'up', i)}</td>`)}</tr>`)}</tbody>
  </table></div></details>`;
}

export function Throughput({ live, names }) {
  const [span, setSpan] = useState('live');
  const [at, setAt] = useState(null);
  const history = useHistory(span, live);
  const ready = history && history.x.length > 0;
  return html`<section class="panel" aria-labelledby="throughput">
    <div class="head"><h2 id="throughput">Throughput</h2>
      <${Choice} name="Time shown" options=${spans} value=${span} onChange=${setSpan} /></div>
    ${ready ? html`
      <${Legend} history=${history} names=${names} at=${at !== null && at < history.x.length ? at : null} />
      <${Chart} history=${history} names=${names} onCursor=${setAt} label="Throughput: down above the line, up below it. The table below has the numbers." />
      <${Timeline} history=${history} names=${names} />
      <${Table} history=${history} names=${names} />` : html`<p class="quiet">Nothing is known of this time yet.</p>`}
  </section>`;
}
