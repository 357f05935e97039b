// Buttons that ask the daemon for changes, one at a time.

import { html, useState } from './vendor/htm-preact.js';

// request has the daemon do something; what it refuses is thrown with what to do next.
async function request(path, method) {
  const answer = await fetch(path, { method });
  if (answer.ok) return;
  const { error, hint } = await answer.json();
  throw new Error([error, hint].filter(Boolean).join('; '));
}

// useChange says whether a change is under way, what was wrong with the last one, and how to ask for one.
export function useChange() {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState('');
  const change = async (path, method = 'POST') => {
    setBusy(true);
    setProblem('');
    try {
      await request(path, method);
      return true;
    } catch (e) {
      setProblem(e.message);
      return false;
    } finally {
      setBusy(false);
    }
  };
  return [busy, problem, change];
}

export const Problem = ({ text }) => text && html`<p class="reason" role="alert">${text}</p>`;

export function Actions({ of, actions }) {
  const [busy, problem, change] = useChange();
  return html`<div class="controls">
    ${actions.map((a) => html`<button key=${a.text} disabled=${busy} class=${a.primary ? 'primary' : ''}
      aria-label="${a.text} ${of}" onClick=${() => change(a.path, a.method)}>${a.text}</button>`)}
    <${Problem} text=${problem} />
  </div>`;
}
