// On every page: a guess that is typed in stays in this browser, and stands beside the answer.
for (const wide of document.querySelectorAll('table, .wide, .math')) if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;   // the keys scroll it
let theme = 'light';                                            // of a printed page; after it the page is as it was
const root = document.documentElement.dataset, turn = () => { [theme, root.theme] = [root.theme, theme]; };
for (const when of ['beforeprint', 'afterprint']) addEventListener(when, turn);

for (const form of document.querySelectorAll('form.guess')) {
  const name = form.dataset.guess, field = form.querySelector('input');
  const line = document.querySelector(`p.answer[data-guess=${CSS.escape(name)}]`), fold = line?.closest('details');      // or a text answers
  const compare = () => {
    const { answer } = line.dataset, guess = field.value, apart = Math.abs(parseFloat(guess) - parseFloat(answer));
    const said = guess && `You guessed ${guess}${apart ? `, off by ${+apart.toPrecision(3)}` : ': exactly'}.`;
    line.querySelector('span').textContent = said && `. ${said}`;
    form.querySelector('output').value = said && `It is ${answer}. ${said}`;
    if (said) localStorage.setItem(`told: ${name}`, `It is ${answer}. ${said}`);
  };
  field.value = localStorage.getItem(`guess: ${name}`) ?? '';
  if (fold && field.value) fold.open = true;
  if (line) compare();
  form.onsubmit = event => event.preventDefault();
  field.onchange = () => {
    field.setCustomValidity(Number.isNaN(parseFloat(field.value)) && field.value ? 'A number, please.' : '');
    if (!field.reportValidity()) return;
    localStorage.setItem(`guess: ${name}`, field.value);
    if (line) compare();
    if (fold && field.value) setTimeout(() => { fold.open = true; }, 250);        // after a click on it, which would shut it
  };
}
const told = Object.keys(localStorage).filter(k => k.startsWith('told: ')).sort();
if (told.length) document.getElementById('guesses')?.replaceChildren(...told.map(k =>
  Object.assign(document.createElement('li'), { textContent: `${k.slice(6)}: ${localStorage.getItem(k)}` })));
