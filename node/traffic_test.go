package node

import (
	"fmt"
	"testing"
)

func TestARunHasCountersForSoManyHostsOfTheWhitelistAndOneForTheRest(t *testing.T) {
	tr := &traffic{}
	tr.web("").Fail()
	tr.meter("db:5432", "tcp", "db.example.org:5432").Sent(1)
	for range 2 {
		for i := range maxWeb + 3 {
			tr.web(fmt.Sprintf("h%d.example.org:443", i)).Sent(10)
		}
	}
	got := tr.counts()
	if len(got) != maxWeb+2 || got[0].Target != "db.example.org:5432" || got[0].Sent != 1 {
		t.Fatalf("%d are shown, first %+v", len(got), got[0])
	}
	for i, c := range got[1 : maxWeb+1] {
		if c.At != "webproxy:3128" || c.Kind != "whitelist" || c.Target != fmt.Sprintf("h%d.example.org:443", i) || c.Sent != 20 {
			t.Errorf("%d: %+v", i, c)
		}
	}
	if c := got[maxWeb+1]; c.At != "webproxy:3128" || c.Kind != "whitelist" || c.Target != "others" || c.Sent != 60 || c.Failed != 1 {
		t.Errorf("of the rest is shown %+v", c)
	}
}
