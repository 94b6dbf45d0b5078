// What is done to arrays before and after the network, in plain Kotlin; numbers as in edge/runtime.py.
package localizer

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/** Reads wsol_tf.json out of the zip behind a .tflite. */
fun readMetadata(file: ByteArray): String {
    val bytes = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN)
    var end = file.size - 22
    while (end >= 0 && bytes.getInt(end) != 0x06054b50) end--
    require(end >= 0) { "The file is cut off, or edge.export did not write it: no metadata." }
    var entry = bytes.getInt(end + 16)
    repeat(bytes.getShort(end + 10).toInt()) {
        val name = bytes.getShort(entry + 28).toInt()
        if (String(file, entry + 46, name) == "wsol_tf.json") {
            val header = bytes.getInt(entry + 42)
            val start = header + 30 + bytes.getShort(header + 26) + bytes.getShort(header + 28)
            return String(file, start, bytes.getInt(entry + 24))
        }
        entry += 46 + name + bytes.getShort(entry + 30) + bytes.getShort(entry + 32)
    }
    error("The file has no wsol_tf.json: edge.export did not write it.")
}

/** Resizes RGB bytes: bilinear, antialiased, aspect ignored, by Pillow's arithmetic. */
fun resizeImage(rgb: ByteArray, width: Int, height: Int, toWidth: Int, toHeight: Int): ByteArray {
    val across = Triangles(width, toWidth)
    val down = Triangles(height, toHeight)
    val target = ByteArray(toWidth * toHeight * 3)
    if (height - toHeight > max(0, 2 * (width - toWidth))) {  // Pillow then takes the rows first
        val rows = ByteArray(width * toHeight * 3)
        down.resample(rgb, width, 3, width * 3, rows, 3, width * 3)
        across.resample(rows, toHeight, width * 3, 3, target, toWidth * 3, 3)
    } else {
        val columns = ByteArray(toWidth * height * 3)
        across.resample(rgb, height, width * 3, 3, columns, toWidth * 3, 3)
        down.resample(columns, toWidth, 3, toWidth * 3, target, 3, toWidth * 3)
    }
    return target
}

/** First source position and weights, in 1 / 2^22, of each of `size` positions made of n. */
private class Triangles(n: Int, size: Int) {
    private val scale = n.toDouble() / size
    private val support = max(scale, 1.0)
    private val first = IntArray(size) { max((((it + 0.5) * scale) - support + 0.5).toInt(), 0) }
    private val weights = Array(size) { i ->
        val center = (i + 0.5) * scale
        val last = min((center + support + 0.5).toInt(), n)
        val row = DoubleArray(last - first[i]) { max(1 - abs((first[i] + it - center + 0.5) / support), 0.0) }
        val sum = row.sum()
        IntArray(row.size) { floor(row[it] / sum * (1 shl 22) + 0.5).toInt() }
    }

    /** Resizes each of `lines` lines; steps are distances in the arrays. */
    fun resample(source: ByteArray, lines: Int, lineStep: Int, step: Int,
                 target: ByteArray, toLineStep: Int, toStep: Int) {
        for (line in 0 until lines) for (i in first.indices) for (colour in 0..2) {
            var sum = 1 shl 21  // one half, for rounding
            var from = line * lineStep + first[i] * step + colour
            for (weight in weights[i]) {
                sum += (source[from].toInt() and 255) * weight
                from += step
            }
            target[line * toLineStep + i * toStep + colour] = min(sum shr 22, 255).toByte()
        }
    }
}

fun softmax(logits: FloatArray): DoubleArray {
    val exponents = DoubleArray(logits.size) { Math.exp(logits[it].toDouble() - logits.max()) }
    return DoubleArray(logits.size) { exponents[it] / exponents.sum() }
}
