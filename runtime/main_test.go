package runtime

import (
	"fmt"
	"os"
	"testing"
)

// TestMain lets the test program stand in for the CNI plugin of the integration
// tests: it says what a plugin says and sets up nothing, because these tests
// need no network.
func TestMain(m *testing.M) {
	switch os.Getenv("CNI_COMMAND") {
	case "":
		os.Exit(m.Run())
	case "ADD":
		fmt.Printf(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":%q}],"ips":[{"address":"192.0.2.2/32","interface":0}]}`,
			os.Getenv("CNI_NETNS"))
	case "VERSION":
		fmt.Print(`{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}`)
	}
}
