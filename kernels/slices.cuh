// Where the pixels of slices are: of a plane, which is one slice, or of a volume that is cut along one of its axes.
//
// Images are (N,) and features (N, 16) in the order of voxels, x fastest. Slices, rows and columns of a volume are its
// axes, in an order that changes from block to block, so each of the three is a stride: nothing is ever transposed. A
// plane has strides 0, `columns` and 1, and costs what it would cost without them.
#pragma once

struct Pixel {
    int row, column;
};

struct Slices {
    int rows, columns;             // of a slice
    int apart, per_row, per_column;  // voxels from one slice, row or column to the next; slices of a plane are 0 apart

    __device__ bool holds(int row, int column) const {
        return row >= 0 && row < rows && column >= 0 && column < columns;
    }

    // From the first voxel of a slice.
    __device__ int offset(int row, int column) const { return row * per_row + column * per_column; }

    // Of a voxel of any slice. The column's stride is always the smaller one; what planes do not need is skipped.
    __device__ Pixel pixel(int voxel) const {
        int row = voxel / per_row, column = voxel - row * per_row;
        if (row >= rows) row %= rows;
        if (per_column > 1) column /= per_column;
        if (column >= columns) column %= columns;
        return {row, column};
    }
};

struct Tile {
    int first;      // voxel of its slice
    int top, left;  // pixel
};

// Tile `number` of those with `side` pixels that cover `rows` x `columns` pixels of every slice, `apart` voxels apart.
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
