// What numbers, times and states look like: as in the output of the commands.

const units = ['b/s', 'kb/s', 'Mb/s', 'Gb/s', 'Tb/s'];

function scaled(value, base, names) {
  let i = 0;
  while (value >= 999.5 && i < names.length - 1) {
    value /= base;
    i++;
  }
  const digits = i === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${names[i]}`;
}

export const rate = (bits) => scaled(Math.max(0, bits || 0), 1000, units);
export const size = (bytes) => scaled(Math.max(0, bytes || 0), 1000, ['B', 'kB', 'MB', 'GB', 'TB', 'PB']);
export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
export const millis = (ms) => (ms > 0 ? `${ms < 9.95 ? ms.toFixed(1) : ms.toFixed(0)} ms` : '–');
export const count = (n) => n.toLocaleString('en');

// lasting is how long something takes, in its two largest units.
export function lasting(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']];
  const at = parts.findIndex(([n]) => s >= n);
  if (at < 0) return '0s';
  const [n, name] = parts[at];
  const rest = parts[at + 1];
  const more = rest && Math.floor((s % n) / rest[0]);
  return `${Math.floor(s / n)}${name}` + (more ? ` ${more}${rest[1]}` : '');
}

export const since = (time, now) => lasting((now - Date.parse(time)) / 1000);

const clockFormat = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dayFormat = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

export function clock(time) {
  const t = new Date(time);
  const today = t.toDateString() === new Date().toDateString();
  return (today ? '' : `${dayFormat.format(t)} `) + clockFormat.format(t);
}

// shapes tell states apart where colours do not.
const shapes = { up: '●', degraded: '◐', portal: '▲', probing: '◌', down: '✕', disabled: '○' };
export const shape = (state) => shapes[state] || '·';

export const usable = (u) => good(u.state) || good(u.ipv6.state);
const good = (state) => state === 'up' || state === 'degraded';

// webAddress is a page that the network named, if a browser may open it.
export function webAddress(text) {
  try {
    const url = new URL(text);
    return /^https?:$/.test(url.protocol) ? url.href : '';
  } catch {
    return '';
  }
}
