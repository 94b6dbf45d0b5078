// From a score map to a mask and boxes, in plain Kotlin; numbers as in edge/arrays.py.
package localizer

import kotlin.math.floor
import kotlin.math.max

/**
 * A component of a mask: box x0, y0, x1, y1 edges in pixels, half-open; score: the mean of the map inside,
 * 0..1; area: pixels.
 */
class FoundObject(val box: IntArray, val score: Float, val area: Int)

/** Mask of a picture, and its components that count as objects, the largest first. */
class Found(
    val width: Int, val height: Int, val mask: BooleanArray, val objects: List<FoundObject>,
    private val hasObject: Boolean = true,
) {
    val boxes: List<IntArray> = objects.map { it.box }

    /** The first of the boxes; the whole picture where there is none, null where there is no object. */
    val box: IntArray? = boxes.firstOrNull() ?: if (hasObject) intArrayOf(0, 0, width, height) else null

    /** What is found where the predicted class is that of pictures without any object. */
    fun withoutObject() = Found(width, height, BooleanArray(mask.size), emptyList(), hasObject = false)
}

class ScoreMap(val values: FloatArray, val width: Int, val height: Int) {
    /**
     * threshold: 0..1 after the stretch, or null for the map's own (Otsu); isSeparated: whether objects that touch
     * are cut apart; the others: see components. With a minPictureArea that leaves no object, there is no box.
     */
    fun localize(
        toWidth: Int, toHeight: Int, threshold: Double?, minArea: Double = 0.0, minPictureArea: Double = 0.0,
        maxObjects: Int = 0, isSeparated: Boolean = false,
    ): Found {
        val map = stretched().resized(toWidth, toHeight)
        val exact = threshold ?: map.otsu().toDouble()
        val cut = exact.toFloat()
        var mask = BooleanArray(map.values.size) { map.values[it] > cut }
        if (isSeparated) mask = separate(mask, map.values, toWidth, toHeight, exact)
        val objects = components(mask, map.values, toWidth, toHeight, minArea, minPictureArea, maxObjects)
        return Found(toWidth, toHeight, mask, objects, hasObject = minPictureArea == 0.0)
    }

    /** By the map's own minimum and maximum to 0..1; a constant map becomes zeros. */
    fun stretched(): ScoreMap {
        require(values.all { it.isFinite() }) { "The output of the model is not finite." }
        val low = values.min()
        val span = values.max() - low
        return ScoreMap(FloatArray(values.size) { if (span > 0) (values[it] - low) / span else 0f }, width, height)
    }

    /**
     * With its edges moved to those of the picture, a quarter of that wide and high, in 0..1; as it is
     * where it is constant. rgb: the bytes that the network saw.
     */
    fun refined(rgb: ByteArray, inputWidth: Int, inputHeight: Int): ScoreMap {
        val stretched = stretched()
        if (stretched.values.none { it > 0 }) return this
        val toWidth = inputWidth / 4
        val toHeight = inputHeight / 4
        val coarse = stretched.resized(toWidth, toHeight).values
        val guide = List(3) { colour ->
            DoubleArray(coarse.size) {
                var sum = 0
                for (y in 0..3) for (x in 0..3) {
                    val pixel = (it / toWidth * 4 + y) * inputWidth + it % toWidth * 4 + x
                    sum += rgb[pixel * 3 + colour].toInt() and 255
                }
                sum / (16 * 255.0)
            }
        }
        val filtered = guidedFilter(DoubleArray(coarse.size) { coarse[it].toDouble() }, guide, toWidth, toHeight)
        return ScoreMap(FloatArray(coarse.size) { filtered[it].coerceIn(0.0, 1.0).toFloat() }, toWidth, toHeight)
    }

    /** As OpenCV's INTER_LINEAR. */
    fun resized(toWidth: Int, toHeight: Int): ScoreMap {
        val (left, right, shareX) = linear(width, toWidth)
        val (above, below, shareY) = linear(height, toHeight)
        fun mix(a: Float, b: Float, share: Float) = (a + (b - a).toDouble() * share).toFloat()
        val rows = FloatArray(height * toWidth) {
            val row = it / toWidth * width
            val x = it % toWidth
            mix(values[row + left[x]], values[row + right[x]], shareX[x])
        }
        return ScoreMap(FloatArray(toHeight * toWidth) {
            val y = it / toWidth
            val x = it % toWidth
            mix(rows[above[y] * toWidth + x], rows[below[y] * toWidth + x], shareY[y])
        }, toWidth, toHeight)
    }

    private fun linear(n: Int, size: Int): Triple<IntArray, IntArray, FloatArray> {
        val position = DoubleArray(size) { (it + 0.5) * (n.toDouble() / size) - 0.5 }
        val before = IntArray(size) { floor(position[it]).toInt().coerceIn(0, n - 1) }
        val after = IntArray(size) { minOf(before[it] + 1, n - 1) }
        return Triple(before, after, FloatArray(size) {
            if (position[it] < 0 || position[it] >= n - 1) 0f else (position[it] - before[it]).toFloat()
        })
    }

    fun otsu(): Float {
        val counts = DoubleArray(256)
        for (value in values) counts[(value * 256).toInt().coerceIn(0, 255)]++
        val total = counts.indices.sumOf { counts[it] * it }
        var below = 0.0
        var moment = 0.0
        val between = DoubleArray(255) {
            below += counts[it]
            moment += counts[it] * it
            val above = values.size - below
            val difference = moment * above - (total - moment) * below
            difference * difference / max(below * above, 1.0)
        }
        val best = between.max() * (1 - 1e-9)
        return (between.indexOfFirst { it >= best } + between.indexOfLast { it >= best } + 2) / 512f
    }
}

/**
 * The 8-connected components of a mask: most pixels first, equal ones by their first pixel, row by row.
 * Those with fewer pixels than the share minArea of the largest one's, or minPictureArea of the picture's, are
 * left out, and at most maxObjects are kept (0: all).
 */
fun components(
    mask: BooleanArray, map: FloatArray, width: Int, height: Int, minArea: Double = 0.0,
    minPictureArea: Double = 0.0, maxObjects: Int = 0,
): List<FoundObject> {
    val sorted = objectsOf(labelsOf(mask, width, height), map, width).sortedByDescending { it.area }  // stable
    val objects = sorted.filter { it.area >= max(minArea * sorted[0].area, minPictureArea * mask.size) }
    return if (maxObjects == 0) objects else objects.take(maxObjects)
}

/** The 8-connected component of each pixel of a mask, from 1 on by their first pixels; 0: none. */
fun labelsOf(mask: BooleanArray, width: Int, height: Int): IntArray {
    val labels = IntArray(mask.size)
    var parents = IntArray(256)  // of each label given so far: a lower one of the same component, or itself
    var count = 0
    fun root(label: Int): Int {
        var at = label
        while (parents[at] != at) at = parents[at]
        return at
    }
    for (i in mask.indices) {
        if (!mask[i]) continue
        val x = i % width
        val above = i - width
        val left = if (x > 0) labels[i - 1] else 0
        val upLeft = if (x > 0 && above >= 0) labels[above - 1] else 0
        val up = if (above >= 0) labels[above] else 0
        val upRight = if (x < width - 1 && above >= 0) labels[above + 1] else 0
        val before = if (up > 0) up else max(left, upLeft)  // these touch each other
        labels[i] = if (before > 0) before else upRight
        if (labels[i] == 0) {
            labels[i] = ++count
            if (count == parents.size) parents = parents.copyOf(2 * count)
            parents[count] = count
        } else if (up == 0 && before > 0 && upRight > 0) {
            val a = root(before)
            val b = root(upRight)
            parents[max(a, b)] = minOf(a, b)
        }
    }
    var number = 0
    for (label in 1..count) {  // parents become numbers, the lower ones first
        parents[label] = if (parents[label] == label) ++number else parents[parents[label]]
    }
    for (i in labels.indices) labels[i] = parents[labels[i]]
    return labels
}

/** What has each label, from 1 on. */
private fun objectsOf(labels: IntArray, map: FloatArray, width: Int): List<FoundObject> {
    val count = labels.max()
    val boxes = List(count) { intArrayOf(Int.MAX_VALUE, Int.MAX_VALUE, 0, 0) }
    val sums = DoubleArray(count)
    val areas = IntArray(count)
    for (i in labels.indices) {
        val own = labels[i] - 1
        if (own < 0) continue
        val x = i % width
        val y = i / width
        val box = boxes[own]
        box[0] = minOf(box[0], x); box[1] = minOf(box[1], y)
        box[2] = maxOf(box[2], x + 1); box[3] = maxOf(box[3], y + 1)
        sums[own] += map[i].toDouble()
        areas[own]++
    }
    return List(count) { FoundObject(boxes[it], (sums[it] / areas[it]).toFloat(), areas[it]) }
}
