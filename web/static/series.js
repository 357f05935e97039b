// What the uplinks carried, as columns for the chart.

import { useEffect, useRef, useState } from './vendor/htm-preact.js';
import { read } from './live.js';

const refreshEvery = 60000; // of what goes by the minute

// useHistory gets a span of time, and adds what comes in while it goes by the second. As long as something is missing it asks again.
export function useHistory(span, live) {
  const [history, setHistory] = useState(null);
  const get = useRef();
  useEffect(() => {
    let wanted = true;
    get.current = async () => {
      const answer = await read(`v1/history?span=${span}`);
      if (wanted && answer.uplinks) setHistory(columns(answer, span));
    };
    setHistory(null);
    get.current();
    const timer = span === 'live' ? 0 : setInterval(get.current, refreshEvery);
    return () => {
      wanted = false;
      clearInterval(timer);
    };
  }, [span, live.since]);
  useEffect(() => {
    if (span !== 'live' || !live.connected) return;
    if (isWhole(history, live.status.uplinks)) setHistory(grown(history, live.status.uplinks));
    else get.current();
  }, [live.ticks]);
  return history;
}

// isWhole reports whether there is something of each uplink: a daemon that has just begun knows nothing yet, and uplinks are plugged in.
function isWhole(history, uplinks) {
  return history && history.x.length > 0 && uplinks.every((u) => history.uplinks[u.name]);
}

const shortest = 60; // values that are shown at least, of however short a time there are any

// columns leaves out the time before anything was known, and the last seconds as long as they are not.
function columns(answer, span) {
  const from = Date.parse(answer.from) / 1000;
  const most = answer.uplinks[0]?.rx_bps.length || 0;
  const known = (v) => v !== null;
  const first = Math.min(...answer.uplinks.map((u) => u.rx_bps.findIndex(known)).filter((i) => i >= 0));
  const end = Math.max(0, ...answer.uplinks.map((u) => u.rx_bps.findLastIndex(known) + 1));
  const begin = Math.max(0, Math.min(first, end - shortest));
  const history = { span, step: answer.step_s, most, x: [], uplinks: {} };
  for (let i = begin; i < end; i++) history.x.push(from + i * answer.step_s);
  for (const u of answer.uplinks) {
    const states = u.states.map((s) => ({ at: Date.parse(s.at) / 1000, state: s.state })).filter((s) => s.at < from + end * answer.step_s);
    history.uplinks[u.name] = { down: u.rx_bps.slice(begin, end), up: u.tx_bps.slice(begin, end), states };
  }
  return history;
}

// grown is a history one second later.
function grown(history, uplinks) {
  const now = Math.floor(Date.now() / 1000);
  const length = history.x.length;
  if (now <= history.x[length - 1]) return history;
  const full = length >= history.most || history.uplinks[Object.keys(history.uplinks)[0]].down[0] === null;
  const slid = (list, value) => [...(full ? list.slice(1) : list), value];
  const next = { ...history, x: slid(history.x, now), uplinks: {} };
  for (const [name, past] of Object.entries(history.uplinks)) {
    const u = uplinks.find((one) => one.name === name);
    const state = u ? u.state : '';
    const states = past.states.at(-1)?.state === state ? past.states : [...past.states, { at: now, state }];
    next.uplinks[name] = { down: slid(past.down, u ? u.rx_bps : null), up: slid(past.up, u ? u.tx_bps : null), states };
  }
  return next;
}

// mean of the values that are known, null where none is.
export function mean(list) {
  const known = list.filter((v) => v !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
}
