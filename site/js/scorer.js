// For Sphinx's search: the glossary names the page that introduces a word; lessons come before the deep_dives,
// solutions and signatures that use it.
var Scorer = {
  score: ([page, , , , score]) => score + (page === 'glossary' ? 10 : /^(deep_dives|solutions|api)\//.test(page) ? -20 : 0),
  title: 15, partialTitle: 7, term: 5, partialTerm: 2, objNameMatch: 11, objPartialMatch: 6, objPrio: {}, objPrioDefault: 0,
};
const textOf = Search.htmlToText;
Search.htmlToText = (page, anchor) => textOf(page.replace(/\\\(.*?\\\)|\\\[.*?\\\]/gs, ''), anchor);         // without its formulas
