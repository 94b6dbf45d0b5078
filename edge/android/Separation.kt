// Objects that touch, cut apart: a component that comes apart into large parts at a higher threshold is as many
// objects. In plain Kotlin; numbers as in wsol_tf/model/separation.py.
package localizer

import kotlin.math.max
import kotlin.math.min

private const val GRID = 56  // positions along each side at which a map is looked at, whatever its size
private const val STEP = 0.03  // between two thresholds
private const val STEPS = 8
private const val SHARE = 0.25  // of the cells of an object that a part must have

/**
 * Cuts the components of a mask into objects: the mask without the pixels on one side of each cut, so that each
 * object is a component of its own. mask: where the map, in 0..1, lies above the threshold, which is not rounded
 * to a Float.
 */
fun separate(mask: BooleanArray, map: FloatArray, width: Int, height: Int, threshold: Double): BooleanArray {
    val labels = labelsOf(mask, width, height)
    fun center(i: Int, side: Int) = ((i + 0.5) * side / GRID).toInt()
    val seen = IntArray(GRID * GRID) { center(it / GRID, height) * width + center(it % GRID, width) }
    val cells = IntArray(seen.size) { labels[seen[it]] }
    val values = FloatArray(seen.size) { map[seen[it]] }
    val cutInto = arrayOfNulls<IntArray>(labels.max() + 1)  // of each component that is cut, the part of each cell
    for (component in cells.distinct()) {
        if (component == 0) continue
        val partOf = partsOf(values, BooleanArray(cells.size) { cells[it] == component }, threshold)
        if (partOf.any { it > 0 }) cutInto[component] = partOf
    }
    if (cutInto.all { it == null }) return mask
    val columns = IntArray(width) { it * GRID / width }
    val rows = IntArray(height) { it * GRID / height * GRID }
    val kept = mask.copyOf()
    for (i in mask.indices) {
        val partOf = if (mask[i]) cutInto[labels[i]] ?: continue else continue
        val x = i % width
        val y = i / width
        val part = partOf[rows[y] + columns[x]]
        for (v in max(y - 1, 0)..min(y + 1, height - 1)) for (u in max(x - 1, 0)..min(x + 1, width - 1)) {
            if (mask[v * width + u] && partOf[rows[v] + columns[u]] > part) kept[i] = false
        }
    }
    return kept
}

/** The highest number among each cell and its eight neighbours. */
private fun highestAround(numbers: IntArray, width: Int): IntArray {
    val rows = IntArray(numbers.size) {
        val left = if (it % width > 0) numbers[it - 1] else 0
        val right = if (it % width < width - 1) numbers[it + 1] else 0
        maxOf(numbers[it], left, right)
    }
    return IntArray(rows.size) {
        val above = if (it >= width) rows[it - width] else 0
        val below = if (it < rows.size - width) rows[it + width] else 0
        maxOf(rows[it], above, below)
    }
}

/** Which part of a component (the cells inside) each cell is nearest to, from 0 on. */
private fun partsOf(values: FloatArray, inside: BooleanArray, threshold: Double): IntArray {
    val partOf = IntArray(values.size)
    var count = 0
    fun cut(region: BooleanArray, firstStep: Int) {
        val own = BooleanArray(region.size) { region[it] && inside[it] }
        val area = own.count { it }
        var seeds = emptyList<List<Int>>()
        var step = firstStep
        while (step <= STEPS) {
            val above = (threshold + step * STEP).toFloat()
            seeds = seedsOf(BooleanArray(own.size) { own[it] && values[it] > above }, area)
            if (seeds.size != 1) break  // where there is none, there is none at a higher threshold
            step++
        }
        if (seeds.size > 1) {
            val nearest = nearestOf(seeds)
            for (part in seeds.indices) cut(BooleanArray(own.size) { region[it] && nearest[it] == part }, step + 1)
        } else {
            for (cell in region.indices) if (region[cell]) partOf[cell] = count
            count++
        }
    }
    cut(BooleanArray(values.size) { true }, 1)
    return partOf
}

/** The parts of a grid that are thick and large enough: their cells, by the first of them. */
private fun seedsOf(cells: BooleanArray, area: Int): List<List<Int>> {
    // Opened by 3 x 3 cells. Beyond the edge of the picture an object may go on.
    val outside = highestAround(IntArray(cells.size) { if (cells[it]) 0 else 1 }, GRID)
    val opened = highestAround(IntArray(cells.size) { 1 - outside[it] }, GRID)
    val labels = labelsOf(BooleanArray(cells.size) { opened[it] > 0 }, GRID, GRID)
    val parts = labels.indices.filter { labels[it] > 0 }.groupBy { labels[it] }
    return parts.values.filter { it.size >= SHARE * area }
}

/** Which of the parts each cell is nearest to; of equally near ones the first. */
private fun nearestOf(seeds: List<List<Int>>): IntArray {
    val distances = seeds.map { squaredDistances(it) }
    return IntArray(GRID * GRID) { cell -> seeds.indices.minBy { distances[it][cell] } }
}

/** The square of the distance of each cell to the nearest one of a part: along rows, then columns. */
private fun squaredDistances(part: List<Int>): IntArray {
    val along = IntArray(GRID * GRID) { 1 shl 20 }  // more than any
    for (cell in part) for (x in 0 until GRID) {
        val other = cell - cell % GRID + x
        along[other] = min(along[other], (x - cell % GRID) * (x - cell % GRID))
    }
    return IntArray(GRID * GRID) { cell ->
        (0 until GRID).minOf { y -> along[y * GRID + cell % GRID] + (y - cell / GRID) * (y - cell / GRID) }
    }
}
