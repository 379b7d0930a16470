// Package credentials finds the login for an image repository: in the node's
// configuration, in the files in which docker login, podman login and their like
// keep them, and with the helper programs that those files name.
//
// It only reads. It knows nothing of registries' protocols and of runtimes.
package credentials
