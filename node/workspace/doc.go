// Package workspace makes, reads and removes the files that one run sees: its
// input, output and token, its scratch directories, its hosts file and the
// databases that its task names. It turns them into mounts and into the
// environment of the algorithm container, as the vantage6 v4 container
// contract wants them.
//
// A run's workspace holds nothing of any other run. Everything below it on the
// host is out of reach for other users of the machine (the root is 0700);
// what the container sees is open to whatever user the image names, because
// only this run's container ever sees it.
package workspace
