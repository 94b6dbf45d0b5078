// The mask and the boxes on this device equal those of edge/runtime.py. Put localizer.tflite and what edge.golden wrote
// (golden.png, golden_mask.png, golden.json) into src/androidTest/assets.
package localizer

import android.graphics.BitmapFactory
import androidx.test.platform.app.InstrumentationRegistry
import org.json.JSONArray
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import kotlin.math.abs

class GoldenTest {
    private val assets = InstrumentationRegistry.getInstrumentation().context.assets
    private fun bytes(name: String) = assets.open(name).use { it.readBytes() }
    private fun picture(name: String) = bytes(name).let { data ->
        val options = BitmapFactory.Options().apply { inPremultiplied = false; inScaled = false }
        BitmapFactory.decodeByteArray(data, 0, data.size, options)
    }

    @Test
    fun maskAndBoxesEqualTheGoldenOnes() {
        val golden = JSONObject(String(bytes("golden.json")))
        val className = if (golden.isNull("asked_class")) null else golden.getString("asked_class")
        val result = Localizer(bytes("localizer.tflite")).use { it.localize(picture("golden.png"), className) }
        val mask = picture("golden_mask.png")
        val truth = rgbOf(mask).let { rgb -> BooleanArray(rgb.size / 3) { rgb[it * 3].toInt() != 0 } }
        val both = truth.indices.count { truth[it] && result.found.mask[it] }
        val either = truth.indices.count { truth[it] || result.found.mask[it] }
        val iou = if (either == 0) 1.0 else both.toDouble() / either
        assertTrue("mask IoU $iou", iou >= golden.getDouble("least_mask_iou"))
        if (golden.isNull("box")) assertNull(result.found.box)
        else assertTrue("the box", near(golden.getJSONArray("box"), result.found.box!!))
        assertSameObjects(golden, result)
        val others = golden.getJSONArray("others")
        assertEquals("other classes", others.length(), result.others.size)
        for (i in 0 until others.length()) assertSameObjects(others.getJSONObject(i), result.others[i])
    }

    private fun near(box: JSONArray, found: IntArray) = (0..3).all { abs(box.getDouble(it) - found[it]) <= 4 }

    private fun assertSameObjects(golden: JSONObject, result: Localization) {
        val boxes = golden.getJSONArray("boxes")
        val scores = golden.getJSONArray("scores")
        for (i in 0 until boxes.length()) {
            val box = boxes.getJSONArray(i)
            val side = minOf(box.getDouble(2) - box.getDouble(0), box.getDouble(3) - box.getDouble(1))
            // A few pixels may differ between runtimes, and smaller components come and go with them.
            if (side <= 8) continue
            val same = result.found.objects.filter { near(box, it.box) }
            assertTrue("$box of the boxes", same.isNotEmpty())
            assertTrue("score of $box", same.any { abs(it.score - scores.getDouble(i)) <= 0.05 })
        }
        if (!golden.isNull("class")) assertEquals(golden.getString("class"), result.className)
    }
}
