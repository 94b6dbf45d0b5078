// What is done to arrays before and after the network, in plain Kotlin; numbers as in edge/arrays.py.
package localizer

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.util.zip.CRC32
import kotlin.math.abs
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.roundToInt

/** Reads wsol_tf.json out of the zip behind a .tflite; its digest is that of the network, or the file is damaged. */
fun readMetadata(file: ByteArray): String {
    val (text, modelEnd) = try {
        unzipMetadata(file)
    } catch (error: RuntimeException) {
        throw IllegalArgumentException("The file is cut off or damaged, or edge.export did not write it.", error)
    }
    // Files of version 0.1.0 have no digest.
    val digest = Regex("\"sha256\": \"(\\w+)\"").find(text)?.groupValues?.get(1) ?: return text
    val found = MessageDigest.getInstance("SHA-256").apply { update(file, 0, modelEnd) }.digest()
    require(found.joinToString("") { "%02x".format(it) } == digest) {
        "The file is damaged: its network is not the one that was exported."
    }
    return text
}

/** The text of wsol_tf.json, and where the network before the zip ends; a RuntimeException where the zip is damaged. */
private fun unzipMetadata(file: ByteArray): Pair<String, Int> {
    val bytes = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN)
    fun short(at: Int) = bytes.getShort(at).toInt() and 0xffff
    var end = file.size - 22
    while (bytes.getInt(end) != 0x06054b50) end--
    var entry = bytes.getInt(end + 16)
    val modelEnd = bytes.getInt(entry + 42).also { check(it in 0..file.size) }
    repeat(short(end + 10)) {
        if (String(file, entry + 46, short(entry + 28)) == "wsol_tf.json") {
            val header = bytes.getInt(entry + 42)
            val start = header + 30 + short(header + 26) + short(header + 28)
            val size = bytes.getInt(entry + 24)
            val crc = CRC32().apply { update(file, start, size) }.value
            check(size < 1 shl 22 && crc.toInt() == bytes.getInt(entry + 16))
            return String(file, start, size) to modelEnd
        }
        entry += 46 + short(entry + 28) + short(entry + 30) + short(entry + 32)
    }
    error("There is no wsol_tf.json.")
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

/** Filters a plane by a guide of three planes in 0..1: He et al., ECCV 2010, equations 19 to 21. */
fun guidedFilter(values: DoubleArray, guide: List<DoubleArray>, width: Int, height: Int): DoubleArray {
    val epsilon = 3e-4  // variance of colours below which a window counts as flat
    fun mean(plane: DoubleArray) = windowMeans(plane, width, height)
    fun product(a: DoubleArray, b: DoubleArray) = mean(DoubleArray(a.size) { a[it] * b[it] })
    val (red, green, blue) = guide
    val r = mean(red); val g = mean(green); val b = mean(blue); val v = mean(values)
    val rv = product(red, values); val gv = product(green, values); val bv = product(blue, values)
    val rr = product(red, red); val rg = product(red, green); val rb = product(red, blue)
    val gg = product(green, green); val gb = product(green, blue); val bb = product(blue, blue)
    val slopes = List(3) { DoubleArray(values.size) }
    val offset = DoubleArray(values.size)
    for (i in values.indices) {
        val covR = rv[i] - r[i] * v[i]; val covG = gv[i] - g[i] * v[i]; val covB = bv[i] - b[i] * v[i]
        val vRR = rr[i] - r[i] * r[i] + epsilon; val vRG = rg[i] - r[i] * g[i]; val vRB = rb[i] - r[i] * b[i]
        val vGG = gg[i] - g[i] * g[i] + epsilon; val vGB = gb[i] - g[i] * b[i]
        val vBB = bb[i] - b[i] * b[i] + epsilon
        // The inverse of the symmetric 3 x 3 matrix of covariances, by its cofactors.
        val iRR = vGG * vBB - vGB * vGB; val iRG = vGB * vRB - vRG * vBB; val iRB = vRG * vGB - vGG * vRB
        val iGG = vRR * vBB - vRB * vRB; val iGB = vRB * vRG - vRR * vGB; val iBB = vRR * vGG - vRG * vRG
        val determinant = vRR * iRR + vRG * iRG + vRB * iRB
        slopes[0][i] = (iRR * covR + iRG * covG + iRB * covB) / determinant
        slopes[1][i] = (iRG * covR + iGG * covG + iGB * covB) / determinant
        slopes[2][i] = (iRB * covR + iGB * covG + iBB * covB) / determinant
        offset[i] = v[i] - slopes[0][i] * r[i] - slopes[1][i] * g[i] - slopes[2][i] * b[i]
    }
    val (ofRed, ofGreen, ofBlue) = slopes.map { mean(it) }
    val rest = mean(offset)
    return DoubleArray(values.size) { ofRed[it] * red[it] + ofGreen[it] * green[it] + ofBlue[it] * blue[it] + rest[it] }
}

/** Averages over windows that reach 1/7 of each side in either direction; borders are mirrored. */
private fun windowMeans(plane: DoubleArray, width: Int, height: Int) =
    slide(slide(plane, height, width, width, 1), width, 1, height, width)

/** Slides a window along each of `lines` lines of n positions; steps are distances in the array. */
private fun slide(source: DoubleArray, lines: Int, lineStep: Int, n: Int, step: Int): DoubleArray {
    val radius = max(1, (n / 7.0).roundToInt())
    val size = 2 * radius + 1
    val at = IntArray(n + size) {  // of what the windows hold, position by position
        val around = (it - radius).mod(2 * n)  // ... 1 0 | 0 1 2 ... | 2 1 ...
        min(around, 2 * n - 1 - around) * step
    }
    val means = DoubleArray(source.size)
    for (line in 0 until lines) {
        val start = line * lineStep
        var sum = 0.0
        for (i in 0 until size) sum += source[start + at[i]]
        for (i in 0 until n) {
            means[start + i * step] = sum / size
            sum += source[start + at[i + size]] - source[start + at[i]]
        }
    }
    return means
}

fun softmax(logits: FloatArray): DoubleArray {
    require(logits.all { it.isFinite() }) { "The output of the model is not finite." }
    val exponents = DoubleArray(logits.size) { Math.exp(logits[it].toDouble() - logits.max()) }
    return DoubleArray(logits.size) { exponents[it] / exponents.sum() }
}

/**
 * The ids of the classes in a picture, the most probable first: that one, and all of at least presence,
 * without the background (an id or null); none where that is the most probable.
 */
fun presentClasses(probabilities: DoubleArray, presence: Double, background: Int? = null): List<Int> {
    val ranked = probabilities.indices.sortedByDescending { probabilities[it] }  // stable
    if (ranked[0] == background) return emptyList()
    return ranked.filter { it != background && (it == ranked[0] || probabilities[it] >= presence) }
}
