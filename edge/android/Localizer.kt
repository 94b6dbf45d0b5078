// A localizer of edge.export on LiteRT. build.gradle: implementation("com.google.ai.edge.litert:litert:1.4.0")
package localizer

import android.graphics.Bitmap
import org.json.JSONObject
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** What stands in the file behind the network; threshold: 0..1, or null for each map's own (Otsu). */
class Metadata(file: ByteArray) {
    private val json = JSONObject(readMetadata(file))
    val map: String = json.getString("map")
    val labels = json.getJSONArray("labels").let { names -> List(names.length()) { names.getString(it) } }
    val height = json.getJSONArray("input_size").getInt(0)
    val width = json.getJSONArray("input_size").getInt(1)
    val threshold = (json.get("threshold") as? Number)?.toDouble()
    private val background = (json.opt("background_class") as? String)?.let { labels.indexOf(it) }
    private val presence = (json.opt("presence_threshold") as? Number)?.toDouble()
    private val refine = json.optString("refine", "none").also {  // files of version 0.1.0 don't say it
        require(it == "none" || it == "guided") { "The file is of another version: its refine is '$it'." }
    }

    /** Whether objects that touch are cut apart; older files don't say it. */
    val isSeparated = (json.opt("separate") ?: false).let {
        requireNotNull(it as? Boolean) { "The file is of another version: its separate is '$it'." }
    }

    /** The map as it is cut: refined by the bytes that the network saw, where the file says so. */
    fun refined(map: ScoreMap, rgb: ByteArray) = if (refine == "guided") map.refined(rgb, width, height) else map

    /** Channel of the map; className is for files with maps "all" and "present" alone. */
    fun channelOf(className: String?): Int {
        val hasMaps = map == "all" || map == "present"
        require(hasMaps || className == null) { "The file holds map '$map': no class can be chosen." }
        if (!hasMaps) return 0
        return labels.indexOf(className).also { require(it >= 0) { "The file has no class '$className'." } }
    }

    /** The classes whose objects are shown, the first one first; none where that is the background. */
    fun present(probabilities: DoubleArray) =
        presentClasses(probabilities, if (map == "present") requireNotNull(presence) else 2.0, background)
}

/**
 * className and probability: null where the file does not say them; others: with map "present", the same of
 * each of the other classes in the picture, the most probable first.
 */
class Localization(
    val found: Found, val className: String?, val probability: Double?, val others: List<Localization> = emptyList(),
)

/** file: bytes of the .tflite, such as assets.open(name).readBytes(). One object per thread. */
class Localizer(file: ByteArray, numThreads: Int = 2) : AutoCloseable {
    val metadata = Metadata(file)
    private val interpreter = Interpreter(direct(file), Interpreter.Options().setNumThreads(numThreads))

    /**
     * picture: upright, any size; className: with map "all", or with "present" in place of all classes that are,
     * whose map is taken; the others: see components.
     */
    fun localize(
        picture: Bitmap, className: String? = null, minArea: Double = 0.0, minPictureArea: Double = 0.0,
        maxObjects: Int = 0,
    ): Localization {
        val rgb = resizeImage(rgbOf(picture), picture.width, picture.height, metadata.width, metadata.height)
        val outputs = run(rgb)
        val tensor = interpreter.getOutputTensorFromSignature("foreground_mask", "localize")
        val (_, height, width, channels) = tensor.shape().toList()
        val values = outputs.getValue("foreground_mask")
        fun found(channel: Int): Found {
            val map = ScoreMap(FloatArray(height * width) { values[it * channels + channel] }, width, height)
            return metadata.refined(map, rgb).localize(
                picture.width, picture.height, metadata.threshold, minArea, minPictureArea, maxObjects,
                metadata.isSeparated)
        }
        val asked = className ?: metadata.map.substringAfter("class:", "").ifEmpty { null }
        val several = metadata.map == "present" && className == null
        val channel = if (several) 0 else metadata.channelOf(className)
        val scores = outputs["class_scores"] ?: return Localization(found(channel), asked, null)
        val probabilities = softmax(scores)
        val present = metadata.present(probabilities)
        if (present.isEmpty()) {
            val best = probabilities.indices.maxBy { probabilities[it] }
            return Localization(found(channel).withoutObject(), metadata.labels[best], probabilities[best])
        }
        if (asked != null) return Localization(found(channel), asked, null)
        val parts = present.map {
            Localization(found(if (several) it else channel), metadata.labels[it], probabilities[it])
        }
        return Localization(parts[0].found, parts[0].className, parts[0].probability, parts.drop(1))
    }

    /** Real values of each output by name, for RGB bytes of the network's own input size. */
    fun run(rgb: ByteArray): Map<String, FloatArray> {
        val tensors = interpreter.getSignatureOutputs("localize")
            .associateWith { interpreter.getOutputTensorFromSignature(it, "localize") }
        val buffers = tensors.mapValues { direct(ByteArray(it.value.numBytes())) }
        interpreter.runSignature(mapOf("image" to direct(rgb)), buffers, "localize")
        return tensors.mapValues { (name, tensor) ->
            val buffer = buffers.getValue(name).apply { rewind() }
            val size = tensor.numElements()
            if (tensor.dataType() == DataType.FLOAT32) FloatArray(size).also { buffer.asFloatBuffer().get(it) }
            else tensor.quantizationParams().let { quantization ->
                FloatArray(size) { ((buffer.get(it).toInt() and 255) - quantization.zeroPoint) * quantization.scale }
            }
        }
    }

    override fun close() = interpreter.close()
}

private fun direct(bytes: ByteArray): ByteBuffer =
    ByteBuffer.allocateDirect(bytes.size).order(ByteOrder.nativeOrder()).apply { put(bytes); rewind() }

/** RGB bytes of a picture, transparency on white. */
fun rgbOf(picture: Bitmap): ByteArray {
    val pixels = IntArray(picture.width * picture.height)
    picture.getPixels(pixels, 0, picture.width, 0, 0, picture.width, picture.height)
    val rgb = ByteArray(pixels.size * 3)
    for ((i, pixel) in pixels.withIndex()) for (colour in 0..2) {
        val alpha = pixel ushr 24
        val value = (pixel shr (16 - 8 * colour)) and 255
        rgb[i * 3 + colour] = ((value * alpha + 255 * (255 - alpha) + 127) / 255).toByte()
    }
    return rgb
}
