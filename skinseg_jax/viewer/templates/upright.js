// Turns pictures as EXIF says, where browsers and Python differ.

// Bytes of pixels that are read at once: phones limit the size of a canvas.
const STRIP = 2 ** 25;
// By EXIF orientation: the part of a matrix that turns. It maps the pixels of
// the file to those of the upright picture.
const TURNS = [
  null, [1, 0, 0, 1], [-1, 0, 0, 1], [-1, 0, 0, -1], [1, 0, 0, -1],
  [0, 1, 1, 0], [0, 1, -1, 0], [0, -1, -1, 0], [0, -1, 1, 0],
];

const UNREADABLE = 'This browser cannot read the file as a picture. Choose a ' +
  'JPEG, PNG or WebP file.';
// Bytes that are read at once to find the parts of a file.
const PIECE = 2 ** 16;
// Bytes of EXIF that are read at most.
const EXIF = 2 ** 20;

// Chromium does not turn WebP files, nor PNG files whose EXIF comes after the
// pixels; other browsers may. So the page takes the EXIF out of both formats
// and turns the picture itself. Browsers turn all other formats.
// Returns {file, orientation}: a file for the browser, and how to turn it.
async function unturned(file) {
  const head = lettersOf(await bytesOf(file, 0, 21));
  const webp = /^RIFF[^]{4}WEBP/.test(head);
  if (!webp && !head.startsWith('\x89PNG\r\n\x1a\n')) {
    return {file, orientation: 1};
  }
  // A WebP file has EXIF only if its first part says so.
  const described =
    !webp || (head.startsWith('VP8X', 12) && head.charCodeAt(20) & 8);
  const parts = [];
  let orientation = 1;
  let from = 0;
  for await (const {name, start, size, end} of chunksOf(file, webp)) {
    if (name !== (webp ? 'EXIF' : 'eXIf')) continue;
    if (described) {
      const length = Math.min(size, EXIF);
      orientation = orientationIn(await bytesOf(file, start + 8, length));
    }
    parts.push(file.slice(from, start));
    // A WebP file states its own size, so there only the name changes.
    if (webp) parts.push('none');
    from = webp ? start + 4 : end;
  }
  if (!from) return {file, orientation};
  const {type} = file;
  return {file: new Blob([...parts, file.slice(from)], {type}), orientation};
}

// Some bytes of a file, fewer at its end.
async function bytesOf(file, start, length) {
  try {
    const data = await file.slice(start, start + length).arrayBuffer();
    return new DataView(data);
  } catch {
    throw new Error('The file cannot be read. It may have been moved, ' +
      'deleted or not downloaded yet. Choose it again.');
  }
}

function lettersOf(view) {
  const {buffer, byteOffset, byteLength} = view;
  return String.fromCharCode(
    ...new Uint8Array(buffer, byteOffset, byteLength));
}

// The parts of a WebP or PNG file. Both have their data after eight bytes.
async function* chunksOf(file, webp) {
  let start = webp ? 12 : 8;
  let read = 0;
  let piece = new DataView(new ArrayBuffer(0));
  for (;;) {
    if (start + 8 > read + piece.byteLength) {
      piece = await bytesOf(file, start, PIECE);
      read = start;
    }
    const place = start - read;
    if (place + 8 > piece.byteLength) return;
    const size = piece.getUint32(webp ? place + 4 : place, webp);
    const letters = new DataView(piece.buffer, webp ? place : place + 4, 4);
    const name = lettersOf(letters);
    // A WebP part has an even length; a PNG part ends with a checksum.
    const end = start + 8 + size + (webp ? size % 2 : 4);
    yield {name, start, size, end};
    if (name === 'IEND') return;
    start = end;
  }
}

// 1 to 8; 1, which turns nothing, if EXIF says nothing or is damaged.
function orientationIn(view) {
  try {
    // Some programs write "Exif" and two zeros first.
    const head = view.getUint32(0) === 0x45786966 ? 6 : 0;
    const little = view.getUint16(head) === 0x4949;
    const first = head + view.getUint32(head + 4, little);
    const count = view.getUint16(first, little);
    for (let i = 0, tag = first + 2; i < count; i++, tag += 12) {
      if (view.getUint16(tag, little) === 0x0112) {
        // Type 4 has 32 bits, the usual type 3 has 16.
        const value = view.getUint16(tag + 2, little) === 4
          ? view.getUint32(tag + 8, little) : view.getUint16(tag + 8, little);
        return TURNS[value] ? value : 1;
      }
    }
  } catch {
    // It ends too early.
  }
  return 1;
}

// Width and height after turning; or before, given those after it.
function turnedSize(orientation, width, height) {
  return orientation > 4 ? [height, width] : [width, height];
}

// Draws an image upright, at that width and height, from the row `top` on.
function drawUpright(context, image, orientation, width, height, top = 0) {
  const [a, b, c, d] = TURNS[orientation];
  context.setTransform(
    a, b, c, d, a + c < 0 ? width : 0, (b + d < 0 ? height : 0) - top);
  context.drawImage(image, 0, 0, ...turnedSize(orientation, width, height));
}

// Reads an image in strips: the function that is returned gives some whole rows
// of the upright image from `top` on, as {top, data}, RGBA.
function stripsOf(image, orientation) {
  const [width, height] = turnedSize(orientation, image.width, image.height);
  const most = Math.max(1, Math.floor(STRIP / (4 * width)));
  const canvas = new OffscreenCanvas(width, Math.min(most, height));
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.globalCompositeOperation = 'copy';
  context.imageSmoothingEnabled = false;
  return (top) => {
    drawUpright(context, image, orientation, width, height, top);
    const rows = Math.min(canvas.height, height - top);
    return {top, data: context.getImageData(0, 0, width, rows).data};
  };
}
