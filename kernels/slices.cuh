// Indices of pixels in slices: a plane is one slice, and a volume is cut into slices along one of its axes.
//
// Images are (N,) and features (N, 16) in the order of voxels, x fastest. Slices, rows and columns of a volume are its
// axes, in an order that changes from block to block. Each of the three has a stride, so nothing is transposed. A plane
// has the strides 0, `columns` and 1, and costs as much as without strides.
#pragma once

struct Pixel {
    int row, column;
};

struct Slices {
    int rows, columns;               // size of a slice
    int apart, per_row, per_column;  // strides of slices, rows and columns, in voxels; a plane has `apart` 0

    __device__ bool holds(int row, int column) const {
        return row >= 0 && row < rows && column >= 0 && column < columns;
    }

    // Index of a pixel's voxel, relative to the first voxel of the slice.
    __device__ int offset(int row, int column) const { return row * per_row + column * per_column; }

    // Pixel of a voxel, in whichever slice it is. The stride of columns is always smaller than that of rows. Operations
    // that planes do not need are skipped.
    __device__ Pixel pixel(int voxel) const {
        int row = voxel / per_row, column = voxel - row * per_row;
        if (row >= rows) row %= rows;
        if (per_column > 1) column /= per_column;
        if (column >= columns) column %= columns;
        return {row, column};
    }
};

struct Tile {
    int first;      // first voxel of the slice
    int top, left;  // first pixel of the tile
};

// Tile `number` of those with side x side pixels that cover the rows x columns pixels of all slices, which have the
// stride `apart`.
__device__ inline Tile tile_of(int number, int side, int rows, int columns, int apart) {
    const int across = (columns + side - 1) / side;
    int first = 0;
    if (apart) {
        const int tiles = across * ((rows + side - 1) / side), slice = number / tiles;
        first = slice * apart;
        number -= slice * tiles;
    }
    return {first, number / across * side, number % across * side};
}
