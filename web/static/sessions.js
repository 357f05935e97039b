// The sessions, by what they have in common.

import { html, useEffect, useState } from './vendor/htm-preact.js';
import { count, size } from './format.js';
import { read } from './live.js';
import { Choice, Swatch } from './parts.js';

const refreshEvery = 3000;
const groupings = { site: 'Sites', host: 'Hosts', uplink: 'Uplinks', session: 'Sessions' };
const headings = { site: 'Site', host: 'Host', uplink: 'Uplink', session: 'Session' };
const nothing = { sessions: 0, total: 0, groups: [] };

function useGroups(by, filter, since) {
  const [groups, setGroups] = useState(nothing);
  useEffect(() => {
    let wanted = true;
    const get = async () => {
      if (document.hidden) return;
      const answer = await read(`v1/sessions/groups?${new URLSearchParams({ by, filter })}`);
      if (wanted && answer.groups) setGroups(answer);
    };
    get();
    const timer = setInterval(get, refreshEvery);
    return () => {
      wanted = false;
      clearInterval(timer);
    };
  }, [by, filter, since]);
  return groups;
}

export function Sessions({ live, names }) {
  const [by, setBy] = useState('site');
  const [filter, setFilter] = useState('');
  const { sessions, total, groups } = useGroups(by, filter, live.since);
  const most = Math.max(1, ...groups.map((g) => g.bytes_in + g.bytes_out));
  return html`<section class="panel" aria-labelledby="sessions">
    <div class="head"><h2 id="sessions">Sessions</h2>
      <${Choice} name="Sessions by" options=${groupings} value=${by} onChange=${setBy} />
      <input type="search" placeholder="Filter: name, address, protocol" aria-label="Filter sessions" maxlength="100"
        value=${filter} onInput=${(e) => setFilter(e.target.value)} /></div>
    <p class="quiet">${count(sessions)} sessions${groups.length < total ? `; the ${groups.length} of ${count(total)} that carried most` : ''}</p>
    <div class="scroll"><table class="sessions">
      <thead><tr><th scope="col">${headings[by]}</th><th scope="col">By</th><th scope="col" class="number">Sessions</th>
        <th scope="col" class="number">Down</th><th scope="col" class="number">Up</th></tr></thead>
      <tbody>${groups.map((g) => html`<tr key=${g.key}>
        <th scope="row">${g.host ? html`${g.host} <small>${g.key}</small>` : g.key || 'unknown'}<span class="share" aria-hidden="true"><span style=${{ width: `${(100 * (g.bytes_in + g.bytes_out)) / most}%` }}></span></span></th>
        <td>${g.uplinks.map((u) => html`<span class="chip" title=${u}><${Swatch} of=${names.indexOf(u)} /><b>${u}</b></span>`)}</td>
        <td class="number">${count(g.sessions)}</td><td class="number">${size(g.bytes_in)}</td><td class="number">${size(g.bytes_out)}</td>
      </tr>`)}</tbody>
    </table></div>
    ${groups.length === 0 && html`<p class="quiet">${filter ? 'No session matches.' : 'There is none now.'}</p>`}
  </section>`;
}
