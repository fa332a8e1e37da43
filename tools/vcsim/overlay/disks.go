// Disks of a VM: that their files are as their configuration says, and the reverse.
package simulator

import (
	"fmt"
	"os"
	"path"
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

// newDisk says how a test wants a disk added.
type newDisk struct {
	Size      int64
	Image     string
	Mode      string
	Kind      string
	Sharing   string
	Encrypted bool
}

func (vm *VirtualMachine) addDisk(n newDisk) (int32, error) {
	var specs []types.BaseVirtualDeviceConfigSpec
	add := func(d types.BaseVirtualDevice, op types.VirtualDeviceConfigSpecFileOperation) {
		specs = append(specs, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: op, Device: d,
		})
	}
	if n.Image != "" {
		st, err := os.Stat(n.Image)
		if err != nil {
			return 0, err
		}
		n.Size = st.Size()
	}
	controller, unit := vm.freeUnit(n.Sharing == "bus")
	if controller == nil {
		scsi := &types.ParaVirtualSCSIController{}
		scsi.Key, scsi.BusNumber = vm.freeBus()
		scsi.SharedBus = types.VirtualSCSISharingNoSharing
		if n.Sharing == "bus" {
			scsi.SharedBus = types.VirtualSCSISharingPhysicalSharing
		}
		add(scsi, "")
		controller = scsi
	}
	d := &types.VirtualDisk{}
	d.Key = vm.freeDiskKey()
	d.ControllerKey, d.UnitNumber = controller.GetVirtualController().Key, &unit
	d.Backing = vm.newBacking(n, d.Key)
	setCapacity(d, n.Size)
	add(d, types.VirtualDeviceConfigSpecFileOperationCreate)
	if fault := vm.configureDevices(&types.VirtualMachineConfigSpec{DeviceChange: specs}); fault != nil {
		return 0, fmt.Errorf("%T", fault)
	}
	if n.Image != "" && back(d) != nil {
		return d.Key, vm.attach(d, n.Image)
	}
	return d.Key, nil
}

func (vm *VirtualMachine) newBacking(n newDisk, key int32) types.BaseVirtualDeviceBackingInfo {
	file := types.VirtualDeviceFileBackingInfo{
		FileName: path.Dir(vm.Config.Files.VmPathName) + fmt.Sprintf("/disk-%d.vmdk", key),
	}
	sharing := ""
	if n.Sharing == "multiwriter" {
		sharing = string(types.VirtualDiskSharingSharingMultiWriter)
	}
	if strings.HasPrefix(n.Kind, "rdm") {
		return &types.VirtualDiskRawDiskMappingVer1BackingInfo{
			VirtualDeviceFileBackingInfo: file,
			LunUuid:                      "0200000000" + strings.ReplaceAll(uuid.New().String(), "-", ""),
			DeviceName:                   "vml.0200000000",
			CompatibilityMode:            strings.TrimPrefix(n.Kind, "rdm-") + "Mode",
			DiskMode:                     n.Mode,
			Uuid:                         newDiskUUID(),
			Sharing:                      sharing,
		}
	}
	b := &types.VirtualDiskFlatVer2BackingInfo{
		VirtualDeviceFileBackingInfo: file, DiskMode: n.Mode, ThinProvisioned: types.NewBool(true), Sharing: sharing,
	}
	if n.Encrypted {
		b.KeyId = &types.CryptoKeyId{KeyId: "disk-key", ProviderId: &types.KeyProviderId{Id: "kms"}}
	}
	return b
}

// freeUnit is a SCSI controller with a free unit; none if a new one is wanted.
func (vm *VirtualMachine) freeUnit(anew bool) (types.BaseVirtualController, int32) {
	taken := map[[2]int32]bool{}
	for _, d := range vm.Config.Hardware.Device {
		if v := d.GetVirtualDevice(); v.UnitNumber != nil {
			taken[[2]int32{v.ControllerKey, *v.UnitNumber}] = true
		}
	}
	for _, d := range vm.Config.Hardware.Device {
		c, ok := d.(types.BaseVirtualSCSIController)
		if anew || !ok || c.GetVirtualSCSIController().SharedBus != types.VirtualSCSISharingNoSharing {
			continue
		}
		for unit := int32(0); unit < 16; unit++ {
			if unit != 7 && !taken[[2]int32{d.GetVirtualDevice().Key, unit}] {
				return c.GetVirtualSCSIController(), unit
			}
		}
	}
	return nil, 0
}

func (vm *VirtualMachine) freeBus() (key, bus int32) {
	key = 1000
	for _, d := range vm.Config.Hardware.Device {
		if _, ok := d.(types.BaseVirtualSCSIController); ok {
			bus++
		}
		if d.GetVirtualDevice().Key >= key && d.GetVirtualDevice().Key < 2000 {
			key = d.GetVirtualDevice().Key + 1
		}
	}
	return key, bus
}

func (vm *VirtualMachine) freeDiskKey() int32 {
	key := int32(2000)
	for _, d := range vmDisks(vm.Config.Hardware.Device) {
		if d.Key >= key {
			key = d.Key + 1
		}
	}
	return key
}
