async function predict(file, signal) {
  if (file.size > settings.bytes) {
    throw new Error(`The file has ${(file.size / 2 ** 20).toFixed(1)} MiB; ` +
      `at most ${settings.bytes / 2 ** 20} are allowed.`);
  }
  const plain = await unturned(file);
  if (signal.aborted) throw signal.reason;
  const form = new FormData();
  // The server never learns the name of the file.
  form.append(settings.field, file, 'picture');
  const token = find('token')?.value;
  say('Predicting …');
  let response;
  try {
    response = await fetch('predict?probability=true', {
      method: 'POST',
      body: form,
      headers: token ? {Authorization: `Bearer ${token}`} : {},
      signal,
    });
  } catch {
    throw new Error('The server cannot be reached. Is it still running?');
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(`${answer.detail ?? `The server answered ${response.status}`}.`);
  }
  const [base, probability] = await Promise.all([
    createImageBitmap(plain.file).catch(() => {
      throw new Error(UNREADABLE);
    }),
    createImageBitmap(blob(answer.probability)),
  ]);
  const [width, height] = viewSize(answer.width, answer.height);
  return {
    answer, base, orientation: plain.orientation, probability, width, height,
    levels: levelsOf(probability, width, height),
    threshold: answer.threshold,
    model:
      `Model: ${answer.model.name}, ${answer.model.architecture}, step ` +
      `${answer.model.step}, SHA-256 ${answer.model.digest.slice(0, 12)}.`,
    describe: () => describe(answer),
  };
}

function blob(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  return new Blob([bytes], {type: 'image/png'});
}

// Grey values of an image, at a size.
function levelsOf(image, width, height) {
  const {data} = drawn(image, width, height).pixels;
  return Uint8Array.from({length: width * height}, (_, i) => data[4 * i]);
}

function describe(answer) {
  const review = find('review');
  review.className = answer.needs_review ? 'warn' : 'faint';
  review.textContent = answer.needs_review
    ? `A person should look at this mask: ${answer.reasons.join('; ')}.`
    : 'No reason was found to review this mask.';
  const dice = answer.expected_dice;
  find('dice').textContent =
    dice === null ? '' : `Expected Dice: ${dice.toFixed(2)}.`;
  find('measured').textContent = answer.threshold.toFixed(2);
  for (const cell of document.querySelectorAll('[data-measure]')) {
    const value = answer.measures[cell.dataset.measure];
    cell.textContent = words(value, cell.dataset.unit);
    cell.closest('tr').hidden = value === '';  // No reason is needed.
  }
}

function words(value, unit) {
  if (value === null) return '–';
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (typeof value === 'string') return value;
  if (unit === '%') return (100 * value).toFixed(1);
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}

// That of the server, or, after the threshold was moved, that of the
// probability.
async function mask({answer, probability}, cut) {
  if (cut === null) return blob(answer.mask);
  checkBrowser('write the mask at this threshold', FOR_MASKS);
  const {width, height} = answer;
  return maskPng(width, height, rowsOf(probability), 255 * cut);
}

// Grey values of an image, row by row.
function* rowsOf(image) {
  const {width, height} = image;
  const strips = stripsOf(image, 1);
  const row = new Uint8Array(width);
  for (let top = 0; top < height;) {
    const {data} = strips(top);
    for (let i = 0; i < data.length; i += 4 * width, top++) {
      for (let x = 0; x < width; x++) row[x] = data[i + 4 * x];
      yield row;
    }
  }
}
