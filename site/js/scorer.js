// For Sphinx's search: the glossary names the page that introduces a word; lessons come before the deep_dives,
// solutions and signatures that use it. What is shown of a page is without its formulas.
Scorer.score = ([page, , , , score]) => score + (page === 'glossary' ? 10 : /^(deep_dives|solutions|api)\//.test(page) ? -20 : 0);
const textOf = Search.htmlToText;
Search.htmlToText = (page, anchor) => textOf(page.replace(/\\\(.*?\\\)|\\\[.*?\\\]/gs, '').replaceAll('</dt>', ': </dt>'), anchor);
