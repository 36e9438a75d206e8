// A window of a JPEG by libjpeg-turbo: what lies outside of it is read, and not turned into pixels.

#include <csetjmp>
#include <cstddef>
#include <cstdio>

#include <jpeglib.h>

namespace {

struct Errors {
  jpeg_error_mgr base;  // first, so that libjpeg's pointer to it is one to this
  jmp_buf back;
};

void Leave(j_common_ptr info) { longjmp(reinterpret_cast<Errors*>(info->err)->back, 1); }

void LeaveOnWarning(j_common_ptr info, int level) {
  if (level < 0) Leave(info);
}

}  // namespace

// Rows `top` to `top` + `height` of the image, from a column near `left` to one near `left` + `width`, to `out`, in
// rows of `stride` bytes; `channels` is 1 for gray and 3 for RGB. Returns where `left` is in a row, or -1 for an image
// that is damaged or of another kind.
extern "C" int cnnjax_jpeg_window(const unsigned char* data, size_t size, int channels, int top, int left, int height,
                                  int width, unsigned char* out, size_t stride) {
  jpeg_decompress_struct info;
  Errors errors;
  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = Leave;
  errors.base.emit_message = LeaveOnWarning;
  if (setjmp(errors.back)) {
    jpeg_destroy_decompress(&info);
    return -1;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, data, size);
  jpeg_read_header(&info, TRUE);
  if (info.num_components != channels) Leave(reinterpret_cast<j_common_ptr>(&info));
  info.out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_start_decompress(&info);

  // Colour of half the resolution is interpolated, at the border of what is decoded from less than at that of the
  // window: two of its columns more on each side, and the pixels are those of the whole image.
  const JDIMENSION margin = 2 * info.max_h_samp_factor, low = left, high = left + width;
  JDIMENSION first = low > margin ? low - margin : 0;
  JDIMENSION columns = (high + margin < info.output_width ? high + margin : info.output_width) - first;
  jpeg_crop_scanline(&info, &first, &columns);
  if (columns * channels > stride) Leave(reinterpret_cast<j_common_ptr>(&info));
  if (top) jpeg_skip_scanlines(&info, top);
  for (int row = 0; row < height;) {
    JSAMPROW at = out + row * stride;
    row += jpeg_read_scanlines(&info, &at, 1);
  }
  jpeg_destroy_decompress(&info);
  return low - first;
}
