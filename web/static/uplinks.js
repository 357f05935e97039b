// A card for each uplink.

import { html } from './vendor/htm-preact.js';
import { count, millis, percent, rate, shape, since, size, webAddress } from './format.js';
import { Actions } from './actions.js';
import { Fact, Swatch } from './parts.js';

function State({ uplink: u, now }) {
  return html`<p class="state ${u.state}"><span class="mark ${u.state}" aria-hidden="true">${shape(u.state)}</span>
    <strong>${u.state}</strong>${u.suspect ? ', suspect' : ''}${u.preferred ? ', preferred' : ''} <span class="quiet">for ${since(u.since, now)}</span></p>`;
}

function Usage({ uplink: u }) {
  if (!u.metered) return null;
  const { used_bytes: used, cap_bytes: cap, state } = u.usage;
  if (!cap) return html`<p class="usage">Metered: ${size(used)} used</p>`;
  return html`<div class="usage ${state}" role="meter" aria-label="Data used" aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(Math.min(100, (100 * used) / cap))}>
    Metered: ${size(used)} of ${size(cap)}${state === 'ok' ? '' : `, ${state}`}
    <span class="bar"><span style=${{ width: `${Math.min(100, (100 * used) / cap)}%` }}></span></span></div>`;
}

function ipv6(v) {
  if (!v.state) return 'none';
  return `${v.state}${v.suspect ? ', suspect' : ''}${v.rtt_ms > 0 ? `, ${millis(v.rtt_ms)}` : ''}`;
}

function Portal({ url }) {
  const page = webAddress(url);
  return page && html`<p class="reason">Somebody must sign in: <code>tapgw portal</code>, or at
    <a href=${page} target="_blank" rel="noopener noreferrer">${new URL(page).host}</a></p>`;
}

function actionsOf(u) {
  const at = (verb) => `v1/uplinks/${encodeURIComponent(u.name)}/${verb}`;
  const off = u.state === 'disabled';
  const name = encodeURIComponent(u.name);
  return [
    off ? { text: 'Enable', path: at('enable'), primary: true } : { text: 'Disable', path: at('disable') },
    u.preferred ? { text: 'Do not prefer', path: 'v1/prefer?uplink=' } : { text: 'Prefer', path: `v1/prefer?uplink=${name}` },
    u.metered ? { text: 'Not metered', path: at('metered?mode=off') } : { text: 'Metered', path: at('metered?mode=on') },
    ...(u.metered_by_command ? [{ text: 'Metered as configured', path: at('metered?mode=auto') }] : []),
  ];
}

export function Card({ uplink: u, colour, mayChange }) {
  const now = Date.now();
  return html`<article class="card panel ${u.state}" data-uplink=${u.name}>
    <header>
      <h2><${Swatch} of=${colour} />${u.name}
        ${u.interface !== u.name && html`<small>${u.interface}</small>`}</h2>
      <${State} uplink=${u} now=${now} />
    </header>
    ${u.reason && html`<p class="reason">${u.reason}</p>`}
    <${Portal} url=${u.portal_url || u.ipv6.portal_url} />
    <div class="rates">
      <p><span class="quiet">Down</span><b>${rate(u.rx_bps)}</b></p>
      <p><span class="quiet">Up</span><b>${rate(u.tx_bps)}</b></p>
    </div>
    <div class="load" role="meter" aria-label="Load" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round(100 * u.load)}>
      <span class="bar"><span class="c${colour % 8}" style=${{ width: `${100 * u.load}%` }}></span></span><span>${percent(u.load)}</span>
    </div>
    <dl class="facts small">
      <${Fact} name="RTT">${millis(u.rtt_ms)}<//>
      <${Fact} name="Loss" warn=${u.loss >= 0.05}>${percent(u.loss)}<//>
      <${Fact} name="Sessions">${count(u.sessions)}<//>
      <${Fact} name="IPv6">${ipv6(u.ipv6)}<//>
      <${Fact} name="Address">${u.addresses[0] || '–'}<//>
    </dl>
    ${u.stands_in && html`<p class="reason">Stands in for ${u.stands_in}, which works again.</p>`}
    <${Usage} uplink=${u} />
    ${mayChange && html`<${Actions} of=${u.name} actions=${actionsOf(u)} />`}
  </article>`;
}
