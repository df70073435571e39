'use strict';
const cases = [...document.querySelectorAll('.case')];
const decisions = { a: 'accept', c: 'correct', r: 'reject' };
const storageKey = 'review ' + document.body.dataset.key;
const byId = (id) => document.getElementById(id);
let answers = new Map();
let current = 0;

try {  // Some browsers have no localStorage for local files.
  answers = new Map(JSON.parse(localStorage.getItem(storageKey)) || []);
} catch {}

function keep() {
  try {
    localStorage.setItem(storageKey, JSON.stringify([...answers]));
  } catch {}
}

function answer(i) {
  return answers.get(cases[i].dataset.id) || { decision: '', comment: '' };
}

function change(values) {
  answers.set(cases[current].dataset.id, { ...answer(current), ...values });
  keep();
}

function show(i) {
  current = Math.max(0, Math.min(cases.length - 1, i));
  cases.forEach((one, k) => { one.hidden = k !== current; });
  const { decision, comment } = answer(current);
  byId('comment').value = comment;
  for (const button of document.querySelectorAll('[data-decision]')) {
    const chosen = button.dataset.decision === decision;
    button.setAttribute('aria-pressed', String(chosen));
  }
  marks();
}

function marks() {
  let decided = 0;
  let loose = 0;
  [...byId('cases').children].forEach((button, i) => {
    const { decision, comment } = answer(i);
    decided += decision ? 1 : 0;
    loose += !decision && comment.trim() ? 1 : 0;
    button.dataset.state = decision;
    const letter = decision ? ' ' + decision[0].toUpperCase() : '';
    button.textContent = String(i + 1) + letter;
    button.setAttribute('aria-current', String(i === current));
  });
  byId('progress').textContent =
    `${decided} of ${cases.length} decided` +
    (loose ? `; ${loose} with a comment but no decision (not saved)` : '');
  byId('previous').disabled = current === 0;
  byId('next').disabled = current === cases.length - 1;
}

function decide(decision) {
  change({ decision });
  show(current + 1);
}

// Spreadsheets would read a cell that starts with these characters as a formula.
function cell(text) {
  const safe = /^[=+\-@'\t\r]/.test(text) ? "'" + text : text;
  return '"' + safe.replaceAll('"', '""') + '"';
}

function csv() {
  const rows = [['image_id', 'decision', 'comment'].join(',')];
  cases.forEach((one, i) => {
    const { decision, comment } = answer(i);
    if (decision) {
      rows.push([one.dataset.id, decision, comment].map(cell).join(','));
    }
  });
  return rows.join('\n') + '\n';
}

function save() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([csv()], { type: 'text/csv' }));
  link.download = document.body.dataset.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === byId('comment')) {
    if (event.key === 'Escape') byId('comment').blur();
    return;
  }
  const key = event.key.toLowerCase();
  // Holding a key down decides only one case.
  if (key in decisions) event.repeat || decide(decisions[key]);
  else if (key === 'arrowright') show(current + 1);
  else if (key === 'arrowleft') show(current - 1);
  else if (key === 'm') byId('comment').focus();
  else if (key === 's') save();
  else return;
  event.preventDefault();
});

byId('comment').addEventListener('input', (event) => {
  change({ comment: event.target.value });
  marks();
});
byId('previous').addEventListener('click', () => show(current - 1));
byId('next').addEventListener('click', () => show(current + 1));
byId('save').addEventListener('click', save);
for (const button of document.querySelectorAll('[data-decision]')) {
  button.addEventListener('click', () => decide(button.dataset.decision));
}
cases.forEach((one, i) => {
  const button = document.createElement('button');
  button.type = 'button';
  button.addEventListener('click', () => show(i));
  byId('cases').append(button);
});
const undecided = cases.findIndex((one, i) => !answer(i).decision);
show(Math.max(0, undecided));
