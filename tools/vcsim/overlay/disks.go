// Disks of a VM: that their files are as their configuration says, and the reverse.
package simulator

import (
	"fmt"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/types"
)

func vmDisks(devices []types.BaseVirtualDevice) []*types.VirtualDisk {
	var res []*types.VirtualDisk
	for _, d := range devices {
		if x, ok := d.(*types.VirtualDisk); ok {
			res = append(res, x)
		}
	}
	return res
}

// back is the backing of a disk in a datastore, nil for a raw device.
func back(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	b, _ := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return b
}

// disk is the VM's disk of this key, its first one for 0.
func (vm *VirtualMachine) disk(key int32) (*types.VirtualDisk, error) {
	for _, d := range vmDisks(vm.Config.Hardware.Device) {
		if d.Key == key || key == 0 {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%s has no disk %d", vm.Self.Value, key)
}

// copyDevices copies the disks, so that a snapshot's and the VM's own can differ.
func copyDevices(devices []types.BaseVirtualDevice) []types.BaseVirtualDevice {
	res := append([]types.BaseVirtualDevice{}, devices...)
	for i, d := range res {
		if x, ok := d.(*types.VirtualDisk); ok {
			disk := *x
			if b := back(x); b != nil {
				backing := *b
				disk.Backing = &backing
			}
			res[i] = &disk
		}
	}
	return res
}

// vadpDisk is called for each disk that is added or edited, when the stock simulator has made empty
// files for it or found the existing ones.
func vadpDisk(vm *VirtualMachine, d *types.VirtualDisk, spec *types.VirtualDeviceConfigSpec) types.BaseMethodFault {
	size := getDiskSize(d)
	d.DiskObjectId = fmt.Sprintf("%s-%d", strings.TrimPrefix(vm.Self.Value, "vm-"), d.Key)
	b := back(d)
	if b == nil {
		setCapacity(d, size)
		return nil
	}
	switch {
	case spec.FileOperation != "":
		b.Uuid = newDiskUUID()
		if fault := makeDisk(b.FileName, size, b.Uuid); fault != nil {
			return fault
		}
	case spec.Operation == types.VirtualDeviceConfigSpecOperationEdit:
		if fault := vm.extend(d, size); fault != nil {
			return fault
		}
	default:
		fault := adopt(b, &size)
		if fault != nil {
			return fault
		}
	}
	setCapacity(d, size)
	return hotAttach(vm, d)
}

func newDiskUUID() string {
	return "6000C29" + uuid.New().String()[7:]
}

func setCapacity(d *types.VirtualDisk, size int64) {
	d.CapacityInBytes, d.CapacityInKB = size, size/1024
}

// makeDisk gives the empty files of a new disk their size and descriptor.
func makeDisk(fileName string, size int64, uuid string) types.BaseMethodFault {
	f, err := os.OpenFile(flat(fileName), os.O_CREATE|os.O_RDWR, 0644)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err == nil {
		err = (&descriptor{size: size, uuid: uuid}).write(fileName)
	}
	if err != nil {
		return &types.FileFault{File: fileName}
	}
	return nil
}

// vadpNewDisk is called for a disk that belongs to no VM.
func vadpNewDisk(req *types.CreateVirtualDisk_Task) types.BaseMethodFault {
	size := int64(0)
	if s, ok := req.Spec.(*types.FileBackedVirtualDiskSpec); ok {
		size = s.CapacityKb << 10
	}
	return makeDisk(req.Name, size, newDiskUUID())
}

// adopt takes size and uuid of an existing disk from its files; ESXi refuses a descriptor whose
// extent is not as large as the flat file.
func adopt(b *types.VirtualDiskFlatVer2BackingInfo, size *int64) types.BaseMethodFault {
	d, err := readDescriptor(b.FileName)
	st, statErr := os.Stat(flat(b.FileName))
	if err != nil || statErr != nil {
		return &types.FileNotFound{FileFault: types.FileFault{File: b.FileName}}
	}
	if d.size != st.Size() || d.size == 0 {
		return &types.InvalidDiskFormat{}
	}
	*size, b.Uuid = d.size, d.uuid
	if b.Uuid == "" {
		b.Uuid = newDiskUUID()
	}
	return nil
}

// extend makes a disk larger; as in vSphere it cannot shrink, nor grow below a snapshot.
func (vm *VirtualMachine) extend(d *types.VirtualDisk, size int64) types.BaseMethodFault {
	file := flat(back(d).FileName)
	st, err := os.Stat(file)
	if err != nil {
		return &types.FileNotFound{FileFault: types.FileFault{File: back(d).FileName}}
	}
	if size == st.Size() {
		return nil
	}
	if size < st.Size() || back(d).Parent != nil {
		return &types.InvalidDeviceOperation{}
	}
	if err := os.Truncate(file, size); err != nil {
		return &types.FileFault{File: back(d).FileName}
	}
	if err := (&descriptor{size: size, uuid: back(d).Uuid}).write(back(d).FileName); err != nil {
		return &types.FileFault{File: back(d).FileName}
	}
	setCapacity(d, size)
	return nil
}

// attach replaces a disk's content.
func (vm *VirtualMachine) attach(d *types.VirtualDisk, image string) error {
	b := back(d)
	st, err := os.Stat(image)
	if err != nil {
		return err
	}
	if st.Size()%512 != 0 {
		return fmt.Errorf("%s is no whole number of sectors", image)
	}
	if err := clone(image, flat(b.FileName)); err != nil {
		return err
	}
	setCapacity(d, st.Size())
	parent := ""
	if b.Parent != nil {
		parent = b.Parent.FileName
	}
	return (&descriptor{size: st.Size(), uuid: b.Uuid, parent: parent}).write(b.FileName)
}
