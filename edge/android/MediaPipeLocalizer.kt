// A localizer of edge.export on MediaPipe Tasks; for files with maps "mean", "class:NAME" and "all".
// build.gradle: implementation("com.google.mediapipe:tasks-vision:0.10.20")
package localizer

import android.content.Context
import android.graphics.Bitmap
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.framework.image.ByteBufferExtractor
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.imagesegmenter.ImageSegmenter
import java.nio.ByteOrder

class MediaPipeLocalizer(context: Context, asset: String) : AutoCloseable {
    private val metadata = Metadata(context.assets.open(asset).use { it.readBytes() })
    private val segmenter = ImageSegmenter.createFromOptions(
        context,
        ImageSegmenter.ImageSegmenterOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetPath(asset).build())
            .setRunningMode(RunningMode.IMAGE)
            .setOutputConfidenceMasks(true)
            .setOutputCategoryMask(false)
            .build(),
    )

    /** As Localizer.localize. */
    fun localize(
        picture: Bitmap, className: String? = null, minArea: Double = 0.0, minPictureArea: Double = 0.0,
        maxObjects: Int = 0,
    ): Found {
        // Resized here, for MediaPipe's own resizing does not average over what it leaves out.
        val rgb = resizeImage(rgbOf(picture), picture.width, picture.height, metadata.width, metadata.height)
        val pixels = IntArray(rgb.size / 3) {
            255 shl 24 or (rgb[it * 3].toInt() and 255 shl 16) or
                (rgb[it * 3 + 1].toInt() and 255 shl 8) or (rgb[it * 3 + 2].toInt() and 255)
        }
        val small = Bitmap.createBitmap(pixels, metadata.width, metadata.height, Bitmap.Config.ARGB_8888)
        val masks = segmenter.segment(BitmapImageBuilder(small).build()).confidenceMasks().get()
        val mask = masks[metadata.channelOf(className)]
        val values = FloatArray(mask.width * mask.height)
        ByteBufferExtractor.extract(mask).order(ByteOrder.nativeOrder()).asFloatBuffer().get(values)
        return metadata.refined(ScoreMap(values, mask.width, mask.height), rgb).localize(
            picture.width, picture.height, metadata.threshold, minArea, minPictureArea, maxObjects,
            metadata.isSeparated)
    }

    override fun close() = segmenter.close()
}
