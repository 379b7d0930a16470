// Package imported keeps the images that an administrator has given to a node as
// files, so that tasks can name them where no registry can be reached.
//
//	DIR/images/HEX.json   what is known of an image, by the digest that it is known by
//	DIR/blobs/HEX         its manifests, configuration and layers, by their SHA-256
//	DIR/sif/NAME.sif      SIF files, which references sif:NAME find
//	DIR/tmp/              what is being written
//	DIR/lock, DIR/names   locked by whoever uses, adds or removes something
//
// A node and any number of commands may use one directory at a time. Nothing in it goes by itself: it
// is not a cache, for nothing of it could be fetched again.
package imported
