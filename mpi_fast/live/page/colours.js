// Values as colours: colour maps as tables of 256 entries, and pixels of a canvas.
"use strict";

const MAPS = {
  inferno: "000004 110a30 320a5e 57106e 781c6d 9a2865 bc3754 d84c3e ed6925 f98e09 fbb61a f4df53 fcffa4",
  viridis: "440154 481f70 443983 3b528b 31688e 287c8e 21918c 20a486 35b779 5ec962 90d743 c8e020 fde725",
  gray: "000000 ffffff",
  hot: "0b0000 420000 790000 b30000 ea0000 ff2200 ff5c00 ff9300 ffca00 ffff07 ffff5a ffffac ffffff",
};
const NOTHING = [96, 96, 96]; // the colour of voxels without a number

function table(name) {
  const stops = MAPS[name].split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (stops.length - 1), low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map((value, k) => Math.round(value + (place - low) * (stops[low + 1][k] - value)));
  });
}
const tables = Object.fromEntries(Object.keys(MAPS).map((name) => [name, table(name)]));

function paint(canvas, values, rows, columns, low, high, colours) {
  const context = canvas.getContext("2d"), pixels = context.createImageData(columns, rows);
  const scale = high > low ? 255 / (high - low) : 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const value = values[row * columns + column];
      const level = Math.max(0, Math.min(255, Math.round((value - low) * scale)));
      const colour = Number.isNaN(value) ? NOTHING : colours[level];
      const at = 4 * ((rows - 1 - row) * columns + column); // vertical axes point up
      pixels.data.set([...colour, 255], at);
    }
  }
  context.putImageData(pixels, 0, 0);
}
