// Small parts that several sections show.

import { html } from './vendor/htm-preact.js';

// Fact is a line of a list of facts.
export const Fact = ({ name, warn, children }) => html`<div class=${warn ? 'warn' : ''}><dt>${name}</dt><dd>${children}</dd></div>`;

// Swatch is the colour of the uplink with a number.
export const Swatch = ({ of }) => html`<span class="swatch c${of % 8}" aria-hidden="true"></span>`;

// Choice is a row of buttons, one of which is pressed.
export function Choice({ name, options, value, onChange }) {
  return html`<div class="choice" role="group" aria-label=${name}>
    ${Object.entries(options).map(([key, text]) => html`<button aria-pressed=${key === value ? 'true' : 'false'}
      onClick=${() => onChange(key)}>${text}</button>`)}
  </div>`;
}
