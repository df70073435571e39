// A grey PNG of a mask: 255 where a number of `rows` is above `cut`, else 0. It
// is written row by row, because a canvas of a large picture would not fit into
// a phone.
async function maskPng(width, height, rows, cut) {
  const packer = new CompressionStream('deflate');
  const writer = packer.writable.getWriter();
  const packed = new Response(packer.readable).arrayBuffer();
  const bytes = new Uint8Array((width + 1) * Math.min(height, 256));
  let used = 0;
  const write = async () => {
    // Otherwise all rows would wait in memory.
    await writer.ready;
    writer.write(bytes.slice(0, used));
    used = 0;
  };
  for (const row of rows) {
    bytes[used++] = 0;  // No filter.
    for (const value of row) bytes[used++] = value > cut ? 255 : 0;
    if (used === bytes.length) await write();
  }
  if (used) await write();
  await writer.close();
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, width);
  head.setUint32(4, height);
  head.setUint8(8, 8);  // Bits of each pixel, which is grey.
  return new Blob([
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    ...chunk('IHDR', new Uint8Array(head.buffer)),
    ...chunk('IDAT', new Uint8Array(await packed)),
    ...chunk('IEND', new Uint8Array(0)),
  ], {type: 'image/png'});
}

function chunk(kind, data) {
  const name = Uint8Array.from(kind, (c) => c.charCodeAt(0));
  const number = (value) => {
    const view = new DataView(new ArrayBuffer(4));
    view.setUint32(0, value);
    return view.buffer;
  };
  return [number(data.length), name, data, number(checksum([name, data]))];
}

function checksum(parts) {
  let crc = -1;
  for (const part of parts) {
    for (const byte of part) {
      crc ^= byte;
      for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 && 0xedb88320);
    }
  }
  return (crc ^ -1) >>> 0;
}
