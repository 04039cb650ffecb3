// The slide and its mask in OpenSeadragon. Places are level-0 pixels of the slide, "z" is screen
// pixels along one of them.

/* global OpenSeadragon */

const SWAP_MS = 2000;

export class Picture {
  constructor(target) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.viewer = new OpenSeadragon.Viewer({
      element: target,
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorAutoFade: false,
      animationTime: calm ? 0 : 0.5,
      maxZoomPixelRatio: 8,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.3,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      imageLoaderLimit: 5, // of the six connections of a browser, one is for questions
      maxImageCacheCount: 400,
      tileRetryMax: 3,
      tileRetryDelay: 1200,
      subPixelRoundingForTransparency: OpenSeadragon.SUBPIXEL_ROUNDING_OCCURRENCES.ALWAYS,
    });
    this.viewer.addHandler("canvas-key", (event) => {
      event.preventDefaultAction = true; // keys.js has all keys
    });
    const { world } = this.viewer;
    const say = () => {
      const items = Array.from({ length: world.getItemCount() }, (_, i) => world.getItemAt(i));
      target.dataset.loaded = items.length > 0 && items.every((item) => !item.getOpacity() || item.getFullyLoaded());
    };
    world.addHandler("add-item", ({ item }) => {
      item.addHandler("fully-loaded-change", say);
      say();
    });
    world.addHandler("remove-item", say);
    this.detail = null;
    this.mask = null;
  }

  on(name, handler) {
    this.viewer.addHandler(name, handler);
  }

  // Resolves when it can be moved.
  open(detail, { shown, opacity }) {
    this.detail = detail;
    this.mask = null;
    this.opacity = opacity;
    const items = [];
    if (detail.picture.first_level !== null) items.push({ tileSource: this.#pictureSource() });
    if (detail.mask.last_level !== null) {
      items.push({ tileSource: this.#maskSource(shown), opacity, success: ({ item }) => (this.mask = item) });
    }
    if (!items.length) {
      this.viewer.close();
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      this.viewer.addOnceHandler("open", resolve);
      this.viewer.open(items);
    });
  }

  // The new mask is loaded behind the old one, so that nothing flickers.
  showClasses(shown) {
    const old = this.mask;
    if (!old) return;
    const detail = this.detail;
    this.viewer.addTiledImage({
      tileSource: this.#maskSource(shown),
      opacity: 0,
      preload: true,
      success: ({ item }) => {
        if (this.detail !== detail) return;
        this.mask = item;
        let isDone = false;
        const swap = () => {
          if (isDone || this.detail !== detail) return;
          isDone = true;
          if (this.mask === item) item.setOpacity(this.opacity);
          if (this.viewer.world.getIndexOfItem(old) >= 0) this.viewer.world.removeItem(old);
        };
        item.addHandler("fully-loaded-change", ({ fullyLoaded }) => fullyLoaded && swap());
        setTimeout(swap, SWAP_MS);
      },
    });
  }

  setOpacity(opacity) {
    this.opacity = opacity;
    this.mask?.setOpacity(opacity);
  }

  #source(firstLevel, lastLevel, url) {
    const [width, height] = this.detail.size_px;
    const full = Math.ceil(Math.log2(Math.max(width, height)));
    const source = new OpenSeadragon.TileSource({
      width,
      height,
      tileSize: this.detail.tile_px,
      tileOverlap: this.detail.overlap_px,
      minLevel: firstLevel,
      maxLevel: lastLevel ?? full,
    });
    source.getLevelScale = (level) => 2 ** (level - full); // the mask may end before the slide does
    source.getTileUrl = url;
    return source;
  }

  #pictureSource() {
    const { id, picture, version } = this.detail;
    return this.#source(picture.first_level, null, (level, x, y) =>
      `inputs/${id}/picture/${level}/${x}_${y}?v=${version}`);
  }

  #maskSource(shown) {
    const { id, mask, version } = this.detail;
    const source = this.#source(0, mask.last_level, (level, x, y) =>
      `inputs/${id}/mask/${shown.toString(16)}/${level}/${x}_${y}?v=${version}`);
    source.hasTransparency = () => true;
    return source;
  }

  get place() {
    const { viewport } = this.viewer;
    const width = this.detail.size_px[0];
    const centre = viewport.getCenter(true);
    const { x: across } = viewport.getContainerSize();
    return { x: centre.x * width, y: centre.y * width, z: (viewport.getZoom(true) * across) / width };
  }

  go({ x, y, z }) {
    const { viewport } = this.viewer;
    const width = this.detail.size_px[0];
    viewport.zoomTo((z * width) / viewport.getContainerSize().x, null, true);
    viewport.panTo(new OpenSeadragon.Point(x / width, y / width), true);
    viewport.applyConstraints(true);
  }

  // From screen pixels of the stage to the slide's, and the part of the slide on screen.
  toSlide(x, y) {
    const { viewport } = this.viewer;
    const point = viewport.pointFromPixel(new OpenSeadragon.Point(x, y), true);
    const width = this.detail.size_px[0];
    return { x: point.x * width, y: point.y * width };
  }

  get box() {
    const { viewport } = this.viewer;
    const { x, y, width: across, height: down } = viewport.getBounds(true);
    const width = this.detail.size_px[0];
    return { x0: x * width, y0: y * width, x1: (x + across) * width, y1: (y + down) * width };
  }

  whole() {
    this.viewer.viewport.goHome();
  }

  zoomBy(factor) {
    this.viewer.viewport.zoomBy(factor);
    this.viewer.viewport.applyConstraints();
  }

  moveBy(x, y) {
    const { viewport } = this.viewer;
    const { width, height } = viewport.getBounds();
    viewport.panBy(new OpenSeadragon.Point(x * width, y * height));
    viewport.applyConstraints();
  }
}
