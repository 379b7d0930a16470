// Package failpoint lets a test end this program by SIGKILL at a chosen step of
// a run's life, as a crash would, or hold the run there while it does something
// to others. It is compiled in only with the build tag "failpoints"; without it a
// step costs nothing and cannot be armed.
//
// The environment variable V6NODE_FAILPOINT names a file. When the program
// reaches the point whose name is in the file, it removes the file, so that it
// happens once, and is killed. With a space and the path of a named pipe behind the
// point it opens the pipe instead, which is when the test's own opening of it
// succeeds, and goes on when the test has closed it.
package failpoint

// Point is a step at which the program can be stopped: it has been taken, and
// nothing after it.
type Point string

// The points of a run's life, in their order.
const (
	Received       Point = "received"        // the ledger has the run
	Begun          Point = "begun"           // admitted; the ledger says that it is being prepared
	Files          Point = "files"           // its directory is made and its input written
	Registered     Point = "registered"      // the server knows that it has begun, and has given its token
	Image          Point = "image"           // its image is pulled
	Sandbox        Point = "sandbox"         // its sandbox lives
	Gateway        Point = "gateway"         // its proxy is open
	Created        Point = "created"         // its container is created
	Starting       Point = "starting"        // the ledger says that it starts
	AuditedStart   Point = "audited-start"   // the audit log says so too
	Started        Point = "started"         // the runtime has started the algorithm
	Verified       Point = "verified"        // its limits are in force
	Active         Point = "active"          // the server knows that it runs
	Ended          Point = "ended"           // the runtime has told of its end
	Decided        Point = "decided"         // the ledger has its outcome
	AuditedEnd     Point = "audited-end"     // the audit log has it
	Acknowledged   Point = "acknowledged"    // the server has its result
	Delivered      Point = "delivered"       // the ledger says so
	SandboxRemoved Point = "sandbox-removed" // its sandbox, control group and proxy are gone
	FilesRemoved   Point = "files-removed"   // its directory is gone
	Closed         Point = "closed"          // the ledger says that nothing is left
)

// Points that only the runs of a server with a blob store have: the first is between Begun and Files, the others
// between AuditedEnd and Acknowledged.
const (
	Fetching Point = "fetching" // a part of its input is written
	Stored   Point = "stored"   // the blob store has its result
	Noted    Point = "noted"    // the ledger says so
)

// BlobPoints are all of these.
var BlobPoints = []Point{Fetching, Stored, Noted}

// Points are those of every run.
var Points = []Point{
	Received, Begun, Files, Registered, Image, Sandbox, Gateway, Created, Starting, AuditedStart, Started, Verified,
	Active, Ended, Decided, AuditedEnd, Acknowledged, Delivered, SandboxRemoved, FilesRemoved, Closed,
}
