// What the daemon tells while somebody looks, as state of the page.

import { useEffect, useReducer } from './vendor/htm-preact.js';

const maxEvents = 200;
const retryAfter = 2000; // where the browser has given up by itself

const nothing = { status: null, mayChange: false, connected: false, since: 0, ticks: 0, pinned: 0, events: [], said: '' };

function reduce(state, [kind, data]) {
  switch (kind) {
    case 'snapshot':
      return {
        ...state, status: data.status, mayChange: data.may_change, connected: true, ticks: state.ticks + 1,
        since: state.connected ? state.since : Date.now(),
      };
    case 'delta':
      return { ...state, ticks: state.ticks + 1, status: merged(state.status, data) };
    case 'past':
      return { ...state, events: [...laterThan(state.events, data.at(-1)), ...data.reverse()].slice(0, maxEvents) };
    case 'event':
      return {
        ...state, events: [data, ...state.events].slice(0, maxEvents), said: data.kind === 'state' ? sentence(data) : state.said,
        pinned: state.pinned + (/^(un)?pinned$/.test(data.kind) ? 1 : 0),
      };
    case 'lost':
      return { ...state, connected: false };
  }
  return state;
}

// laterThan are the events that came while the past was asked for.
function laterThan(events, last) {
  return last ? events.filter((e) => Date.parse(e.time) > Date.parse(last.time)) : events;
}

function merged(status, delta) {
  const changed = new Map(delta.uplinks.map((u) => [u.name, u]));
  return { ...status, sessions: delta.sessions, uptime_s: delta.uptime_s, uplinks: status.uplinks.map((u) => changed.get(u.name) || u) };
}

// sentence is an event for people.
export function sentence(e) {
  const who = [e.uplink, e.family === 'ipv6' ? 'IPv6' : ''].filter(Boolean).join(' ');
  const what = e.kind === 'state' ? `${e.from || 'new'} → ${e.to}` : e.kind.replaceAll('-', ' ');
  return [who, [what, e.message].filter(Boolean).join(': ')].filter(Boolean).join(' ');
}

// useLive follows the daemon while the page is visible.
export function useLive() {
  const [state, tell] = useReducer(reduce, nothing);
  useEffect(() => {
    let source, timer;
    const open = () => {
      close();
      source = new EventSource('v1/live');
      source.addEventListener('open', async () => tell(['past', await read('v1/history/events')]));
      for (const kind of ['snapshot', 'delta', 'event']) {
        source.addEventListener(kind, (e) => tell([kind, JSON.parse(e.data)]));
      }
      source.addEventListener('error', () => {
        tell(['lost']);
        if (source.readyState !== EventSource.CLOSED) return;
        timer = setTimeout(open, retryAfter);
        read('v1/status');
      });
    };
    const close = () => {
      clearTimeout(timer);
      source?.close();
    };
    const follow = () => {
      if (document.hidden) {
        close();
        tell(['lost']);
      } else open();
    };
    follow();
    document.addEventListener('visibilitychange', follow);
    return () => {
      document.removeEventListener('visibilitychange', follow);
      close();
    };
  }, []);
  return state;
}

// read gets one answer of the daemon, an empty list when there is none now. Where it wants to know who asks, its own page does that.
export async function read(path) {
  try {
    const answer = await fetch(path);
    if (answer.status === 401) location.reload();
    return answer.ok ? await answer.json() : [];
  } catch {
    return [];
  }
}
