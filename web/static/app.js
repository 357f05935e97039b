// The page: verdict, uplinks, throughput, sessions, events, health.

import { html, render, useState } from './vendor/htm-preact.js';
import { clock, count, lasting, rate, shape, usable } from './format.js';
import { sentence, useLive } from './live.js';
import { Actions } from './actions.js';
import { Card } from './uplinks.js';
import { Throughput } from './throughput.js';
import { Sessions } from './sessions.js';
import { Pins } from './pins.js';
import { Fact } from './parts.js';

function verdict(uplinks) {
  const n = uplinks.filter(usable).length;
  if (uplinks.length > 0 && n === uplinks.length) {
    return ['online', n === 1 ? 'The only uplink is usable' : `All ${n} uplinks are usable`];
  }
  return [n > 0 ? 'partial' : 'offline', `${n} of ${uplinks.length} uplinks usable`];
}

const sum = (list, key) => list.reduce((total, u) => total + u[key], 0);

function Header({ live }) {
  const { status, connected } = live;
  const [word, text] = verdict(status.uplinks);
  const mark = { online: 'up', partial: 'degraded', offline: 'down' }[word];
  return html`<header class="verdict ${word}">
    <div class="word">
      <span class="mark ${mark}" aria-hidden="true">${shape(mark)}</span>
      <div><h1>Internet: ${word}</h1><p>${text}</p></div>
    </div>
    <dl class="totals">
      <div><dt>Down</dt><dd>${rate(sum(status.uplinks, 'rx_bps'))}</dd></div>
      <div><dt>Up</dt><dd>${rate(sum(status.uplinks, 'tx_bps'))}</dd></div>
      <div><dt>Sessions</dt><dd>${count(status.sessions)}</dd></div>
    </dl>
    ${!connected && html`<p class="lost" role="alert">No answer from the daemon. What is shown is old; trying again …</p>`}
  </header>`;
}

const someEvents = 12;

function Events({ events }) {
  const [all, setAll] = useState(false);
  const shown = all ? events : events.slice(0, someEvents);
  return html`<section class="panel" aria-labelledby="events">
    <h2 id="events">Events</h2>
    ${events.length === 0 && html`<p class="quiet">Nothing has happened yet.</p>`}
    <ol class="events">
      ${shown.map((e) => html`<li key=${e.time + sentence(e)}>
        <time datetime=${e.time}>${clock(e.time)}</time>
        <span class="mark ${e.kind === 'state' ? e.to : ''}" aria-hidden="true">${e.kind === 'state' ? shape(e.to) : '·'}</span>
        <span>${sentence(e)}</span>
      </li>`)}
    </ol>
    ${events.length > someEvents && html`<button class="plain" onClick=${() => setAll(!all)}>
      ${all ? 'Show fewer' : `Show all ${events.length}`}</button>`}
  </section>`;
}

function Pause({ until }) {
  return html`<div class="note pause"><p>Paused until ${clock(until)}: traffic leaves by the host's own routes.</p>
    <${Actions} of="capturing" actions=${[{ text: 'Resume', path: 'v1/resume', primary: true }]} /></div>`;
}

function Health({ status, mayChange }) {
  const shortcut = (on, why) => (on ? 'on' : `off: ${why}`);
  return html`<section class="panel" aria-labelledby="health">
    <h2 id="health">Health</h2>
    <dl class="facts">
      <${Fact} name="Datapath">${status.datapath}${status.datapath_reason && `: ${status.datapath_reason}`}<//>
      <${Fact} name="LAN shortcut">${shortcut(status.lan_shortcut, status.lan_shortcut_reason)}<//>
      ${(status.lan_shortcut_ipv6 || status.lan_shortcut_ipv6_reason) && html`<${Fact} name="… of IPv6">
        ${shortcut(status.lan_shortcut_ipv6, status.lan_shortcut_ipv6_reason)}<//>`}
      ${status.datapath_bypasses.length > 0 && html`<${Fact} name="Known sessions bypass">
        <ul>${status.datapath_bypasses.map((b) => html`<li>${b}</li>`)}</ul><//>`}
      <${Fact} name="Running for">${lasting(status.uptime_s)}<//>
      <${Fact} name="Version">${status.version}<//>
    </dl>
    ${mayChange && !status.paused_until && html`<${Actions} of="capturing" actions=${[{ text: 'Pause 5 min', path: 'v1/pause?seconds=300' }]} />`}
  </section>`;
}

function App() {
  const live = useLive();
  const { status } = live;
  if (!status) return html`<p class="wait">Asking the daemon …</p>`;
  const names = status.uplinks.map((u) => u.name);
  return html`
    <${Header} live=${live} />
    <p class="unseen" role="status" aria-live="polite">${live.said}</p>
    <main class=${live.connected ? '' : 'old'}>
      ${!live.mayChange && html`<p class="note">You may look. To change things here, run <code>tapgw web</code> on this host, and open what it prints.</p>`}
      ${status.paused_until && html`<${Pause} until=${status.paused_until} />`}
      <section class="cards" aria-label="Uplinks">
        ${status.uplinks.map((u, i) => html`<${Card} key=${u.name} uplink=${u} colour=${i} mayChange=${live.mayChange} />`)}
      </section>
      <${Throughput} live=${live} names=${names} />
      <${Sessions} live=${live} names=${names} />
      <${Pins} live=${live} names=${names} />
      <div class="pair"><${Events} events=${live.events} /><${Health} status=${status} mayChange=${live.mayChange} /></div>
    </main>`;
}

render(html`<${App} />`, document.getElementById('app'));
