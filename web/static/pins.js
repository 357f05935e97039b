// Pins: clients that are to use one uplink, for a site or for all.

import { html, useEffect, useState } from './vendor/htm-preact.js';
import { clock } from './format.js';
import { read } from './live.js';
import { Actions, Problem, useChange } from './actions.js';
import { Swatch } from './parts.js';

const self = 'self';
const lengths = [['', 'until the daemon ends'], ['3600', '1 hour'], ['28800', '8 hours'], ['86400', '1 day']];

function usePins(live) {
  const [pins, setPins] = useState([]);
  useEffect(() => {
    let wanted = true;
    read('v1/pins').then((list) => wanted && setPins(list));
    return () => { wanted = false; };
  }, [live.pinned, live.since]);
  return pins;
}

// pathOf is where a pin is changed.
function pathOf(inside, site, more = {}) {
  const wanted = { inside: inside === self ? '' : inside, site, ...more };
  return `v1/pins?${new URLSearchParams(Object.entries(wanted).filter(([, value]) => value !== ''))}`;
}

function Row({ pin: p, names, mayChange }) {
  const client = p.inside || self;
  return html`<tr><th scope="row">${client === self ? 'this gateway' : client}</th><td>${p.site || 'all sites'}</td>
    <td><span class="chip"><${Swatch} of=${Math.max(0, names.indexOf(p.uplink))} /><span>${p.uplink}</span></span></td>
    <td>${p.until ? `until ${clock(p.until)}` : ''}</td>
    ${mayChange && html`<td><${Actions} of=${[client, p.site].filter(Boolean).join(' to ')}
      actions=${[{ text: 'Unpin', path: pathOf(client, p.site), method: 'DELETE' }]} /></td>`}</tr>`;
}

// hostsNow are clients that have sessions, to choose from.
async function hostsNow() {
  const { groups } = await read('v1/sessions/groups?by=host');
  return groups || [];
}

function Form({ names }) {
  const [hosts, setHosts] = useState([]);
  const [busy, problem, change] = useChange();
  const submit = async (e) => {
    e.preventDefault();
    const form = e.target;
    const { client, site, uplink, seconds } = Object.fromEntries(new FormData(form));
    if (await change(pathOf(client.trim(), site.trim(), { uplink, seconds }))) form.reset();
  };
  return html`<form class="pin" onSubmit=${submit}>
    <label>Client <input name="client" required maxlength="45" list="clients" placeholder="address, or ${self}" autocomplete="off"
      onFocus=${async () => setHosts(await hostsNow())} /></label>
    <datalist id="clients"><option value=${self} label="this gateway" />${hosts.map((h) => html`<option value=${h.key} label=${h.host || h.key} />`)}</datalist>
    <label>Site <input name="site" maxlength="253" placeholder="all" autocomplete="off" /></label>
    <label>Uplink <select name="uplink">${names.map((n) => html`<option value=${n}>${n}</option>`)}</select></label>
    <label>For <select name="seconds">${lengths.map(([value, text]) => html`<option value=${value}>${text}</option>`)}</select></label>
    <button disabled=${busy}>Pin</button>
    <${Problem} text=${problem} />
  </form>`;
}

export function Pins({ live, names }) {
  const pins = usePins(live);
  if (pins.length === 0 && !live.mayChange) return null;
  return html`<section class="panel pins" aria-labelledby="pins">
    <h2 id="pins">Pins</h2>
    <p class="quiet">New sessions of a client can be kept to one uplink while it is up: those to a site, or all.</p>
    ${pins.length > 0 && html`<div class="scroll"><table>
      <thead><tr><th scope="col">Client</th><th scope="col">Site</th><th scope="col">Uplink</th><th scope="col">Time</th>
        ${live.mayChange && html`<th scope="col">Change</th>`}</tr></thead>
      <tbody>${pins.map((p) => html`<${Row} key=${`${p.inside} ${p.site}`} pin=${p} names=${names} mayChange=${live.mayChange} />`)}</tbody>
    </table></div>`}
    ${live.mayChange && html`<${Form} names=${names} />`}
  </section>`;
}
