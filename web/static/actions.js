// Buttons that ask the daemon for changes, one at a time.

import { html, useState } from './vendor/htm-preact.js';

// change has the daemon do something; what it refuses is thrown with what to do next.
async function change(path) {
  const answer = await fetch(path, { method: 'POST' });
  if (answer.ok) return;
  const { error, hint } = await answer.json();
  throw new Error([error, hint].filter(Boolean).join('; '));
}

export function Actions({ of, actions }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState('');
  const ask = async (path) => {
    setBusy(true);
    setProblem('');
    try {
      await change(path);
    } catch (e) {
      setProblem(e.message);
    }
    setBusy(false);
  };
  return html`<div class="controls">
    ${actions.map((a) => html`<button key=${a.text} disabled=${busy} class=${a.primary ? 'primary' : ''}
      aria-label="${a.text} ${of}" onClick=${() => ask(a.path)}>${a.text}</button>`)}
    ${problem && html`<p class="reason" role="alert">${problem}</p>`}
  </div>`;
}
