// On every page: a guess that is typed in stays in this browser, and stands beside the answer.
for (const wide of document.querySelectorAll('table, .wide, .math')) if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;   // the keys scroll it

const forms = [...document.querySelectorAll('form.guess')], key = name => `guess: ${name}`;
const answered = name => [...document.querySelectorAll('p.answer')].find(p => p.dataset.guess === name);

for (const form of forms) {
  const name = form.dataset.guess, field = form.querySelector('input'), fold = answered(name)?.closest('details');
  field.value = localStorage.getItem(key(name)) ?? '';
  if (fold && field.value) fold.open = true;
  form.onsubmit = event => event.preventDefault();
  field.onchange = () => {
    field.setCustomValidity(Number.isNaN(parseFloat(field.value)) && field.value ? 'A number, please.' : '');
    if (!field.reportValidity()) return;
    localStorage.setItem(key(name), field.value);
    compare();
    if (fold && field.value) setTimeout(() => { fold.open = true; }, 250);        // after a click on it, which would shut it
  };
}
addEventListener('beforeprint', () => {                         // answers are printed, folded code is not
  for (const fold of document.querySelectorAll('details:not(.above-input)')) fold.open = true;
});

function compare() {
  for (const line of document.querySelectorAll('p.answer')) {
    const { guess: name, answer } = line.dataset, guess = localStorage.getItem(key(name));
    const apart = Math.abs(parseFloat(guess) - parseFloat(answer));
    const said = !guess ? '' : `You guessed ${guess}` + (Number.isNaN(apart) ? '.' : apart === 0 ? ': exactly.' : `, off by ${+apart.toPrecision(3)}.`);
    line.querySelector('span').textContent = said && `. ${said}`;
    for (const form of forms) if (form.dataset.guess === name) form.querySelector('output').value = said && `It is ${answer}. ${said}`;
    if (said) localStorage.setItem(`told: ${name}`, `It is ${answer}. ${said}`);
  }
  const told = Object.keys(localStorage).filter(k => k.startsWith('told: ')).sort();
  if (told.length) document.getElementById('guesses')?.replaceChildren(...told.map(k =>
    Object.assign(document.createElement('li'), { textContent: `${k.slice(6)}: ${localStorage.getItem(k)}` })));
}
compare();
